# SPDX-License-Identifier: Apache-2.0
"""A real browser for the tests of pages: headless Chromium over its DevTools pipe."""

from __future__ import annotations

import base64
from collections.abc import Iterator
import fcntl
import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import time
from typing import Any

import pytest

_PATIENCE_S = 120.0


class Browser:
    """
    One tab of a headless Chromium, driven by the DevTools protocol.

    Messages are JSON that ends with a zero byte, on file descriptors 3 and 4
    (--remote-debugging-pipe), so that no port and no WebSocket is needed. `messages` is what the
    console and the log said, `requests` every URL that was asked for.
    """

    def __init__(self, program: str, home: Path) -> None:
        its_input, commands = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe())
        answers, its_output = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe())
        self._commands, self._answers = commands, answers
        self._process = subprocess.Popen(
            [
                'bash', '-c', f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}', program,
                '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                '--no-first-run', '--disable-extensions', '--disable-background-networking',
                '--remote-debugging-pipe', f'--user-data-dir={home}', 'about:blank',
            ],
            pass_fds=(its_input, its_output), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, 'HOME': str(home)},
        )  # fmt: skip
        os.close(its_input)
        os.close(its_output)
        self._received = b''
        self._number = 0
        self._session: str | None = None
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._loaded = 0
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def close(self) -> None:
        os.close(self._commands)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request: dict[str, Any] = {'id': self._number, 'method': method, 'params': parameters}
        if self._session is not None:
            request['sessionId'] = self._session
        os.write(self._commands, json.dumps(request).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, f'{method}: {answer}'
                return answer['result']

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE_S
        while b'\0' not in self._received:
            ready, _, _ = select.select([self._answers], [], [], end - time.monotonic())
            assert ready, f'Chromium said nothing for {_PATIENCE_S:g} s'
            data = os.read(self._answers, 1 << 20)
            assert data, 'Chromium ended'
            self._received += data
        message, _, self._received = self._received.partition(b'\0')
        answer = json.loads(message)
        self._note(answer.get('method', ''), answer.get('params', {}))
        return answer

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == 'Page.loadEventFired':
            self._loaded += 1
        elif method == 'Network.requestWillBeSent':
            self.requests.append(parameters['request']['url'])
        elif method == 'Runtime.consoleAPICalled':
            self.messages.append(json.dumps(parameters['args']))
        elif method == 'Runtime.exceptionThrown':
            self.messages.append(json.dumps(parameters['exceptionDetails']))
        elif method == 'Log.entryAdded':
            self.messages.append(parameters['entry']['text'])

    def open(
        self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> None:
        scheme = 'dark' if dark else 'light'
        self.resize(width, height)
        self.call(
            'Emulation.setEmulatedMedia',
            features=[{'name': 'prefers-color-scheme', 'value': scheme}],
        )
        before = self._loaded
        self.call('Page.navigate', url=path.resolve().as_uri())
        while self._loaded == before:
            self._receive()

    def resize(self, width: int, height: int) -> None:
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height,
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def evaluate(self, expression: str) -> Any:
        result = self.call(
            'Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def press(self, key: str) -> None:
        code = {'ArrowRight': 39, 'ArrowLeft': 37, 'End': 35, 'Home': 36}[key]
        for kind in ('rawKeyDown', 'keyUp'):
            self.call(
                'Input.dispatchKeyEvent', type=kind, key=key, code=key,
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        data = self.call('Page.captureScreenshot', captureBeyondViewport=whole)['data']
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope='session')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a tab of Chromium, or skip without one."""
    found = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')]
    program = next((path for path in found if path), None)
    if program is None:
        pytest.skip('no Chromium to open the page with: apt install chromium')
    tab = Browser(program, tmp_path_factory.mktemp('chromium'))
    yield tab
    tab.close()
