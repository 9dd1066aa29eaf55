'use strict';
(() => {
  const slider = document.getElementById('slider');
  if (!slider) return;
  const bags = JSON.parse(document.getElementById('frames-data').textContent).bags;
  const choice = document.getElementById('bag');
  const number = document.getElementById('frame-number');
  const strips = document.getElementById('strips');
  let bag = bags[0];
  let indices = [];

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function figure(run, index, [title, source, width, height]) {
    const picture = element('img', {
      src: source, width, height, alt: `${run.name}, frame ${index}: ${title}`,
    });
    return element('figure', {}, picture, element('figcaption', { textContent: title }));
  }

  // Only the shown frame's pictures are in the document: the browser decodes no others.
  function show() {
    const index = indices[slider.valueAsNumber];
    number.textContent = String(index);
    slider.setAttribute('aria-valuetext', `frame ${index}`);
    strips.replaceChildren(...bag.runs.flatMap((run) => {
      const strip = run.strips.find((entry) => entry.index === index);
      const words = strip ? strip.caption : 'no pictures of this frame';
      const title = element('p', { className: 'strip-title' }, `${run.name}: ${words}`);
      if (!strip) return [title];
      const figures = strip.pictures.map((picture) => figure(run, index, picture));
      return [title, element('div', { className: 'strip' }, ...figures)];
    }));
    for (const chart of document.querySelectorAll('.chart')) {
      const { first, last, left, right } = chart.dataset;
      const share = (index - first) / (last - first);
      const x = Number(left) + Math.min(1, Math.max(0, share)) * (right - left);
      const cursor = chart.querySelector('.cursor');
      cursor.setAttribute('x1', x);
      cursor.setAttribute('x2', x);
    }
  }

  function choose() {
    bag = bags[choice ? Number(choice.value) : 0];
    const all = bag.runs.flatMap((run) => run.strips.map((strip) => strip.index));
    indices = [...new Set(all)].sort((one, other) => one - other);
    slider.max = String(indices.length - 1);
    slider.value = '0';
    show();
  }

  slider.addEventListener('input', show);
  if (choice) choice.addEventListener('change', choose);
  // Arrow keys turn the pages of the film wherever the focus is, unless something else uses them.
  document.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const target = event.target;
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (target.closest('input, select, textarea, .scroll')) return;
    slider.value = String(slider.valueAsNumber + step);
    show();
    event.preventDefault();
  });
  choose();
})();
