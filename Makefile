# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv and installs
# what it needs and no more. `make demo ARGS="--headless --duration 20 --out out"`.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
ARGS ?=
PYTEST_ARGS ?=
NO_PACKAGES := echo 'pip could not install the packages: is the package index reachable? (x86-64 Linux only: rclpy has no other wheels)' >&2; exit 1
MATRIX_TESTS := test/networks/test_network_export.py

.PHONY: demo test matrix benchmarks lint robot-test clean

demo: $(VENV)/.demo
	$(RUN) -m mtl_perception demo $(ARGS)

test: lint
	$(RUN) -m pytest -m 'not gpu and not matrix' $(PYTEST_ARGS)
	$(MAKE) robot-test

lint: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

# Everything, the full matrix of systems and backbones and the cycle of every recipe included;
# hours on two cores. The table is printed whatever failed, and says so; the exit status is pytest's.
matrix: $(VENV)/.test
	@echo 'The table comes from $(MATRIX_TESTS); these alone: make matrix PYTEST_ARGS=$(MATRIX_TESTS)'
	@rm -f matrix.xml
	@status=0; \
	$(RUN) -m pytest -m 'not gpu' --junitxml=matrix.xml $(PYTEST_ARGS) || status=$$?; \
	$(RUN) test/networks/matrix_table.py matrix.xml || test $$status != 0 || status=1; \
	exit $$status

# The parts that run on a robot, with the oldest libraries that pip still offers: Jazzy's rclpy,
# NumPy 1 and OpenCV 4. Stands in for Humble on JetPack 6.
robot-test: .venv-robot/.robot
	.venv-robot/bin/python -m pytest -m 'not gpu and not matrix' \
		test/ros test/inference test/geometry test/simulation test/tasks \
		test/bags test/test_camera.py test/test_image_codec.py test/test_manifest.py $(PYTEST_ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "mtl_perception needs Python 3.10 or newer; say which: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv module is missing; install it: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.py | $(VENV)/bin/python
	@echo 'Installing what the demo needs (1.3 GB on disk, once) ...'
	@$(PIP) -e '.[ros,cpu,rooms,viewer]' || { \
		$(NO_PACKAGES); }
	@touch $@

$(VENV)/.test: setup.py | $(VENV)/bin/python
	@echo 'Installing what training and the tests need (several GB, once) ...'
	@$(PIP) -e '.[ros,cpu,openvino,rooms,train,tensorrt-rtx,map,viewer,test]' || { \
		$(NO_PACKAGES); }
	@touch $@

.venv-robot/.robot: setup.py | $(VENV)/bin/python
	@$(PYTHON) -m venv .venv-robot
	@.venv-robot/bin/python -m pip install --quiet --disable-pip-version-check \
		-c test/robot_constraints.txt -e '.[ros,cpu,rooms]' pytest pytest-timeout hypothesis psutil 'scipy>=1.10' || { \
		$(NO_PACKAGES); }
	@touch $@

# What docs/benchmarks.md shows, measured on this machine; hours on two cores.
benchmarks: $(VENV)/.test
	$(RUN) -m mtl_perception benchmark --threads 1,2 --markdown docs/benchmarks.md $(ARGS)
	$(RUN) -m mtl_perception benchmark engines --threads 1,2 --markdown docs/benchmarks.md \
		--plot docs/images/engines.png
	$(RUN) -m mtl_perception benchmark systems --markdown docs/benchmarks.md \
		--plot docs/images/systems.png
	$(RUN) -m mtl_perception benchmark soak --threads 1 --markdown docs/benchmarks.md

clean:
	rm -rf $(VENV) .venv-robot build install log *.egg-info
