# A thin front over CMake and its presets: make run | test | build | bench | lint | install
#
#   make          build all of it, in build/release
#   make run      train a small model on text for two minutes, then let it write
#                 DATA=path  your own file or folder     MINUTES=m     RUN_DIR=where the model goes
#   make test     build and run every test
#   make install  library, headers and program under PREFIX (default /usr/local; DESTDIR is honoured)
#
# What is missing on the machine is installed first, by tools/install_dependencies.sh.

.DEFAULT_GOAL = build

JOBS    ?= $(shell getconf _NPROCESSORS_ONLN)
PREFIX  ?= /usr/local
DATA    ?=
MINUTES ?= 2
RUN_DIR ?= build/run
RELEASE  = build/release
MAKEFLAGS += --no-print-directory

.PHONY: run test build program bench lint install clean configure dependencies

run: program
	@tools/run.sh $(RELEASE)/tessera "$(RUN_DIR)" "$(MINUTES)" "$(DATA)"

test: build
	cd $(RELEASE) && ctest --output-on-failure --parallel $(JOBS)

build: configure
	cmake --build $(RELEASE) --parallel $(JOBS)

program: configure
	cmake --build $(RELEASE) --parallel $(JOBS) --target tessera_program

bench: program
	$(RELEASE)/tessera bench

lint: build
	tools/install_dependencies.sh lint
	tools/lint.sh $(RELEASE)

install: dependencies
	cmake --preset install -DCMAKE_INSTALL_PREFIX=$(abspath $(PREFIX))
	cmake --build build/install --parallel $(JOBS)
	cmake --install build/install
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" -ne 0 ] || PATH="$$PATH:/sbin" ldconfig # or the loader misses a new library

clean:
	rm -rf build

configure: $(RELEASE)/cmake_install.cmake dependencies

# Written when configuring is complete; from then on the build configures itself again where it must.
$(RELEASE)/cmake_install.cmake: | dependencies
	cmake --preset release

dependencies:
	@tools/install_dependencies.sh build
