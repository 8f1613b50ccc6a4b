"""The child process in which a chat template runs: it comes with the file, so it is foreign code.

`python -m refmodel.text.template_child` reads one request (JSON) from stdin, gives up all rights that it can, and answers with
one JSON object: {"text": ...} or {"error": ...}. The environment is that of transformers' apply_chat_template: jinja2's immutable
sandbox, which gives no way to Python's internals, with loop controls, `{% generation %}`, tojson, raise_exception and
strftime_now. What the sandbox does not limit, the operating system does: time, memory, files, processes.
"""

import datetime
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}` marks what the assistant wrote; here it is replaced by its contents."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The contents as they are."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment in which no attribute that begins with an underscore can be read."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read this attribute."""
        return not attr.startswith("_") and super().is_safe_attribute(obj, attr, value)


class Refusal(TemplateError):
    """The error that a template raises by raise_exception."""


def raise_exception(message: object) -> None:
    """Raise a Refusal with the template's message."""
    raise Refusal(str(message))


def tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """A value as JSON, not escaped for HTML as jinja2's own filter does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form: str) -> str:
    """The local time in a format of strftime."""
    return datetime.datetime.now().strftime(form)


def environment() -> Environment:
    """The jinja2 environment in which a template runs."""
    env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    env.filters["tojson"] = tojson
    functions: dict[str, Callable[..., Any]] = {"raise_exception": raise_exception, "strftime_now": strftime_now}
    env.globals.update(functions)
    del env.globals["lipsum"]
    return env


def limit(seconds: int, memory: int) -> None:
    """Limit this process from here on: seconds of processor time, bytes of address space, no file and no child process."""
    bounds = {
        resource.RLIMIT_CPU: seconds + math.ceil(time.process_time()),
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def render(template: str, values: Mapping[str, Any], most: int) -> str:
    """The text of a template. SecurityError if it has more than `most` characters."""
    parts, size = [], 0
    for part in environment().from_string(template).generate(values):
        parts.append(part)
        size += len(part)
        if size > most:
            raise SecurityError(f"it writes more than {most:,} characters")
    return "".join(parts)


def one_line(error: Exception) -> str:
    """An error's message on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]


def answer(request: Mapping[str, Any]) -> dict[str, str]:
    """The answer to a request: {"text": ...} or {"error": what the template did}."""
    try:
        limit(request["seconds"], request["memory"])
        return {"text": render(request["template"], request["values"], request["characters"])}
    except Refusal as error:
        return {"error": f"says: {one_line(error)}"}
    except MemoryError:
        return {"error": f"takes more than {request['memory'] >> 20} MiB of memory"}
    except Exception as error:  # whatever foreign code can raise
        line = f" in line {error.lineno}" if hasattr(error, "lineno") else ""
        return {"error": f"fails{line}: {one_line(error) or type(error).__name__}"}


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
