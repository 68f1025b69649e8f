"""`penstock compile`: make the hot path faster, as machine code. See gateway/compiled.py."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import sysconfig
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.commands.output import Refused, refuse, say_json
from gateway.compiled import HOT, LIBRARY, folder, reason, source, write_manifest

_CONFIG = "[mypy]\nignore_missing_imports = True\n"
_WITHOUT = "not compiled, Penstock works without"


class NotCompiled(Refused):
    """It can't be done here; the message says what is missing or what failed."""


def run(args: Namespace) -> int:
    """0 when the hot path is compiled, 1 when it can't be; what was there before stays then."""
    if args.force or reason():
        try:
            with alone(folder()):
                if args.force or reason():  # another may have done it meanwhile
                    _compile(folder())
        except NotCompiled as error:
            return refuse(args, error)
    if args.json:
        say_json({"compiled": True, "modules": len(HOT), "folder": str(folder())})
    else:
        print(f"{len(HOT)} modules are compiled, in {folder()}")
    return 0


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """One at a time, of all who compile for this environment; the others wait. Raises `NotCompiled`."""
    try:
        fd = os.open(place.with_name(f"{place.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotCompiled(f"{_WITHOUT}; {place.parent} can't be written: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _compile(place: Path) -> None:
    """Build in a folder of its own, then put it in its place at once."""
    with tempfile.TemporaryDirectory(prefix="penstock-compile-") as name:
        work = Path(name)
        ours = source("gateway.compiled").parent
        shutil.copytree(ours, work / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
        (work / "mypy.ini").write_text(_CONFIG)
        with contextlib.chdir(work):
            _build(work / "built")
        write_manifest(work / "built", work)  # ours may have changed meanwhile
        fresh, old = place.with_name(f"{place.name}.new"), place.with_name(f"{place.name}.old")
        for each in (fresh, old):
            shutil.rmtree(each, ignore_errors=True)
        try:
            shutil.copytree(work / "built", fresh)
            if place.exists():
                place.rename(old)
            fresh.rename(place)
        except OSError as error:
            raise NotCompiled(f"{_WITHOUT}; {place} can't be written: {error}") from error
        shutil.rmtree(old, ignore_errors=True)


def _build(built: Path) -> None:
    compiler = str(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise NotCompiled(
            f"{_WITHOUT}; there is no {compiler} (on Debian: apt install gcc; CC=… names another)"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise NotCompiled(f"{_WITHOUT}; there is no Python.h (on Debian: apt install python3-dev)")
    try:
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.errors import BaseError, CompileError, LinkError
    except ImportError as error:
        raise NotCompiled(f"{_WITHOUT}; {error}: pip install 'penstock[compile]' brings it") from error
    files = [Path(*name.split(".")).with_suffix(".py").as_posix() for name in HOT]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            extensions = mypycify(
                [*files, "--config-file", "mypy.ini", "--cache-dir", "cache"],
                opt_level="2",
                debug_level="0",
                strip_asserts=True,
                multi_file=True,
                group_name=LIBRARY,
            )
            distribution = Distribution({"name": LIBRARY, "ext_modules": extensions})
            command = distribution.get_command_obj("build_ext")
            assert command is not None
            command.build_lib, command.build_temp = str(built), "objects"
            command.ensure_finalized()
            _abreast()
            command.run()
    except SystemExit as error:  # mypy does not agree
        raise NotCompiled(f"{_WITHOUT}; mypyc refuses it:\n{said.getvalue() or error}") from error
    except (BaseError, CompileError, LinkError, OSError) as error:
        raise NotCompiled(f"{_WITHOUT}; the C compiler fails: {error}") from error


def _abreast() -> None:
    """Have all C files of a library compiled at once, by as many processes as there are cores."""
    from setuptools._distutils.ccompiler import CCompiler

    def compile(
        self: Any,
        sources: Any,
        output_dir: Any = None,
        macros: Any = None,
        include_dirs: Any = None,
        debug: Any = 0,
        extra_preargs: Any = None,
        extra_postargs: Any = None,
        depends: Any = None,
    ) -> Any:
        macros, objects, extra, options, build = self._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        arguments = self._get_cc_args(options, debug, extra_preargs)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(lambda each: self._compile(each, *build[each], arguments, extra, options), build))
        return objects

    CCompiler.compile = compile  # type: ignore[method-assign]
