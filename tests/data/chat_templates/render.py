"""Renders every template of a folder with every conversation as transformers does, and records the texts and errors.

Jinja is set up as in transformers' `utils/chat_template_utils.py`; the clock stands at 2026-11-28. See README.md.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 11, 28)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
REASONING = ("reasoning_content", "thinking", "reasoning")


class Generation(jinja2.ext.Extension):
    """`{% generation %}` renders its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def given(message):
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[key] for key in REASONING if key in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = NOW.strftime


def render(template, conversation):
    variables = {**TOKENS, **conversation.get("arguments", {})}
    return environment.from_string(template).render(
        messages=[given(message) for message in conversation["messages"]],
        tools=conversation.get("tools"),
        documents=conversation.get("documents"),
        add_generation_prompt=conversation.get("add_generation_prompt", False),
        **variables,
    )


def main(folder, conversations, output):
    conversations = json.loads(pathlib.Path(conversations).read_text(encoding="utf-8"))
    recorded = []
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        for conversation in conversations:
            entry = {"template": path.name, "conversation": conversation["name"]}
            try:
                # As a file that is opened in text mode: line ends become \n.
                entry["text"] = render(path.read_text(encoding="utf-8"), conversation)
            except Exception as error:
                entry["error"] = f"{type(error).__name__}: {error}"
            recorded.append(entry)
    text = json.dumps(recorded, ensure_ascii=False, indent=1)
    pathlib.Path(output).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
