"""Options of the command line that are made of the targets' settings: a target that is added brings its flags along."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from dq_toolchain.toolchain.recipe.fields import Setting, settings_of
from dq_toolchain.toolchain.recipe.sections import TargetSection

Sections = Mapping[str, type[TargetSection]]


def with_options(command: Callable[..., None], added: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """The command with more options, before its last one (--json, where it has that); it takes them as ``**given``."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    twice = {parameter.name for parameter in own} & {parameter.name for parameter in added}
    assert not twice, f"settings of targets are called like options of `{command.__name__}`: {', '.join(twice)}"

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        command(**{name: None if value == [] else value for name, value in given.items()})

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own[:-1], *added, *own[-1:])]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def target_options(sections: Sections) -> list[inspect.Parameter]:
    """A keyword parameter, as typer reads it, for every setting of every target.

    A setting that several targets have is one option. Names of earlier versions are options that the help does not list.
    """
    sharing: dict[str, list[Setting]] = {}
    for target, section in sections.items():
        for setting in settings_of(target, section):
            sharing.setdefault(setting.key, []).append(setting)
    options = [_option(several) for several in sharing.values()]
    old = {name: renamed for section in sections.values() for name, renamed in section.RENAMED.items()}
    for name, renamed in old.items():
        if name not in sharing:
            is_flag = all(isinstance(value, bool) for value in renamed.values.values())
            options.append(_parameter(name, bool if is_flag else str, typer.Option(_flag(name), hidden=True)))
    return options


def examples(sections: Sections, command: str) -> str:
    """An example of the command for every target that gives one."""
    found = [f"dq-toolchain {command} --target {target} {section.EXAMPLE}" for target, section in sections.items()
             if section.EXAMPLE]  # fmt: skip
    return " | ".join([f"dq-toolchain {command}", *found])


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _option(several: list[Setting]) -> inspect.Parameter:
    first = several[0]
    kinds = {setting.kind for setting in several}
    assert len(kinds) == 1, f"{first.flag} has several types, of {', '.join(one.section for one in several)}"
    if first.kind is bool:
        switched = {setting.default for setting in several}
        assert len(switched) == 1, f"{first.flag} is on by default for some targets and off for others"
        on = first.default is False
        name = first.flag if on else f"--no-{first.key.replace('_', '-')}"
        return _parameter(first.key, bool, typer.Option(name, help=_help(several), callback=None if on else _negated))
    kind = list[str] if first.kind is tuple else first.kind
    return _parameter(first.key, kind, typer.Option(first.flag, help=_help(several)))


def _negated(given: bool | None) -> bool | None:
    return None if given is None else not given


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _help(several: list[Setting]) -> str:
    """What an option does, per target where they differ, what it takes, and its default."""
    text = _by_target(several, lambda setting: setting.description, "{0}: {1}")
    if several[0].kind is bool:
        return text
    allowed = _by_target(several, lambda setting: setting.allowed, "{1} for {0}", alike="{1}")
    with_default = [setting for setting in several if _shown(setting.default)]
    alike = "{1}" if len(with_default) == len(several) else ""
    default = _by_target(with_default, lambda setting: _shown(setting.default), "{0} {1}", alike)
    return f"{text} ({allowed}){f'  [default: {default}]' if default else ''}"


def _by_target(several: list[Setting], text: Callable[[Setting], str], form: str, alike: str = "") -> str:
    """``form`` of (targets, text) for each text and those that share it; ``alike`` where there is only one."""
    same: dict[str, list[str]] = {}
    for setting in several:
        same.setdefault(text(setting), []).append(setting.section)
    if len(same) == 1 and alike:
        form = alike
    return "; ".join(form.format(", ".join(names), said) for said, names in same.items())


def _shown(value: Any) -> str:
    return "" if value is None or value == () else str(value)
