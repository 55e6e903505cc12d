"""Chat templates of the families, and those that drop or add something."""

import pytest

from introspect_utils.models import chat_template
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError

TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
ASSISTANT = "{% if add_generation_prompt %}<assistant>{% endif %}"
CHATML = TURNS + ASSISTANT
GEMMA2 = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
OLD_REFUSAL = GEMMA2.replace("System role not supported", "Conversation roles must alternate")
GEMMA3 = (
    "{% if messages[0]['role'] == 'system' %}{% set before = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set before = '' %}{% endif %}"
    "<user>{{ before }}{{ messages[0]['content'] | trim }}" + ASSISTANT
)
QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}<system>You are a helpful assistant.{% endif %}"
    + CHATML
)
QWEN3 = CHATML + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
PHI3 = "{% for m in messages %}{% if m['role'] == 'user' %}<user>{{ m['content'] }}{% endif %}"
PHI3 += "{% endfor %}" + ASSISTANT
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "[INST] {% if system %}{{ system }}\n\n{% endif %}{{ messages[0]['content'] }} [/INST]"
)
DATED = (
    "<system>Today: {% if date_string is defined %}{{ date_string }}{% else %}"
    "{{ strftime_now('%d %b %Y') }}{% endif %}" + CHATML
)
NOW = "<system>Today: {{ strftime_now('%Y-%m-%d') }}" + CHATML
R1 = CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}"
MAGISTRAL = CHATML + "[THINK]"
COHERE = CHATML + "<|START_THINKING|>"


@pytest.fixture(scope="module")
def lm():
    return load_model("tiny-llama", "cpu")


@pytest.mark.parametrize(
    ("template", "alone", "with_system"),
    [
        (CHATML, "<user>hi<assistant>", "<system>be<user>hi<assistant>"),
        (GEMMA2, "<user>hi<assistant>", "<user>be\n\nhi<assistant>"),
        (OLD_REFUSAL, "<user>hi<assistant>", "<user>be\n\nhi<assistant>"),
        (GEMMA3, "<user>hi<assistant>", "<user>be\n\nhi<assistant>"),
        (QWEN25, "<system><user>hi<assistant>", "<system>be<user>hi<assistant>"),
        (
            QWEN3,
            "<user>hi<assistant><think>\n\n</think>\n\n",
            "<system>be<user>hi<assistant><think>\n\n</think>\n\n",
        ),
        (PHI3, "<user>hi<assistant>", "<user>be\n\nhi<assistant>"),
        (MISTRAL, "[INST] hi [/INST]", "[INST] be\n\nhi [/INST]"),
        (
            R1,
            "<user>hi<assistant><think>\n\n</think>\n\n",
            "<system>be<user>hi<assistant><think>\n\n</think>\n\n",
        ),
        (
            MAGISTRAL,
            "<user>hi<assistant>[THINK]\n\n[/THINK]\n\n",
            "<system>be<user>hi<assistant>[THINK]\n\n[/THINK]\n\n",
        ),
        (
            COHERE,
            "<user>hi<assistant><|START_THINKING|>\n\n<|END_THINKING|>\n\n",
            "<system>be<user>hi<assistant><|START_THINKING|>\n\n<|END_THINKING|>\n\n",
        ),
        (
            DATED,
            "<system>Today: 26 Jul 2024<user>hi<assistant>",
            "<system>Today: 26 Jul 2024<system>be<user>hi<assistant>",
        ),
        (
            NOW,
            "<system>Today: 2024-07-26<user>hi<assistant>",
            "<system>Today: 2024-07-26<system>be<user>hi<assistant>",
        ),
    ],
)
def test_every_family_shows_both_texts_and_nothing_of_its_own(lm, template, alone, with_system):
    lm.tokenizer.chat_template = template
    assert lm.chat("hi") == alone
    assert lm.chat("hi", "be") == with_system


@pytest.mark.parametrize(
    "template",
    [
        "<assistant>",
        "{{ messages[0]['content'][:3] }}<assistant>",
        "{% for m in messages %}{{ m['content'].missing.part }}{% endfor %}",
        "{{ raise_exception('not today') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{% if messages %}",
        "{% set form = '%d' %}{{ strftime_now(form) }}" + CHATML,
        "{{ messages[0]['content'].split('question')[-1] }}<assistant>",
    ],
    ids=["neither", "cut", "attribute", "refusal", "type", "syntax", "some day", "split"],
)
def test_a_template_that_fails_or_leaves_a_text_out_is_an_error(lm, template):
    lm.tokenizer.chat_template = template
    with pytest.raises(UserError, match="chat template of tiny-llama fails or leaves out"):
        lm.chat("a question of many words", "a system prompt")


def test_a_folder_with_such_a_template_does_not_load(lm, tmp_path):
    lm.tokenizer.chat_template = "<assistant>"
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="leaves out '.*a question'"):
        load_model(str(tmp_path), "cpu")


def test_a_template_that_changes_is_looked_at_again(lm):
    lm.tokenizer.chat_template = PHI3
    assert lm.chat("hi", "be") == "<user>be\n\nhi<assistant>"
    lm.tokenizer.chat_template = CHATML
    assert lm.chat("hi", "be") == "<system>be<user>hi<assistant>"


def test_a_thought_that_a_user_writes_is_left_alone():
    for text in ("what is <think>?", "<think>\nno</think>", "I think [x]"):
        assert chat_template.without_thoughts(text) == text
