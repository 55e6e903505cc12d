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
        "{{ messages[0]['content'].split('question')[-1] }}<assistant>",
    ],
    ids=["neither", "cut", "attribute", "refusal", "type", "syntax", "split"],
)
def test_a_template_that_fails_or_leaves_a_text_out_is_an_error(lm, template):
    lm.tokenizer.chat_template = template
    with pytest.raises(UserError, match="chat template of tiny-llama (fails|does not)"):
        lm.chat("a question of many words", "a system prompt")


def test_a_folder_with_such_a_template_does_not_load(lm, tmp_path):
    lm.tokenizer.chat_template = "<assistant>"
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not write a user's text"):
        load_model(str(tmp_path), "cpu")


def test_a_template_that_changes_is_looked_at_again(lm):
    lm.tokenizer.chat_template = PHI3
    assert lm.chat("hi", "be") == "<user>be\n\nhi<assistant>"
    lm.tokenizer.chat_template = CHATML
    assert lm.chat("hi", "be") == "<system>be<user>hi<assistant>"


def test_a_thought_that_a_user_writes_is_left_alone(lm):
    lm.tokenizer.chat_template = CHATML
    for text in ("what is <think>?", "<think>\nno</think>", "I think [x]", "[THINK]"):
        assert lm.chat(text) == f"<user>{text}<assistant>"


NOT_EMPTY = "{% if messages[0]['role'] != 'system' or not messages[0]['content'] %}"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{ strftime_now ('%Y-%m-%d') }}" + CHATML, "2024-07-26<user>hi<assistant>"),
        ("{% set now = strftime_now %}{{ now('%Y') }}" + CHATML, "2024<user>hi<assistant>"),
        ("{% set form = '%d' %}{{ strftime_now(form) }}" + CHATML, "26<user>hi<assistant>"),
        ("{{ strftime_now('%H:%M') }}" + CHATML, "00:00<user>hi<assistant>"),
        (NOT_EMPTY + "<system>You are X{% endif %}" + CHATML, "<system> <user>hi<assistant>"),
        ("{{ bos_token }}{{ bos_token }}" + CHATML, "[bos]<user>hi<assistant>"),
        ("\n {{ bos_token }}" + CHATML, "[bos]<user>hi<assistant>"),
        ("{{ bos_token }}\n{{ bos_token }}\n" + CHATML, "[bos]\n<user>hi<assistant>"),
    ],
)
def test_no_day_no_prompt_of_its_own_and_one_bos(lm, template, prompt):
    lm.tokenizer.chat_template = template
    bos = lm.tokenizer.bos_token
    assert lm.chat("hi") == prompt.replace("[bos]", bos)
    ids = lm.encode(lm.chat("hi", "be"), special=True)
    assert ids.count(lm.tokenizer.bos_token_id) == 1 and lm.tokenizer.decode(ids[:1]) == bos


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<seed:think>", "<seed:think>\n\n</seed:think>\n\n"),
        ("<|begin_of_thought|>\n", "<|begin_of_thought|>\n\n<|end_of_thought|>\n\n"),
        ("<think>\nOkay,", "<think>\nOkay,\n\n</think>\n\n"),
        ("<reasoning>", "<reasoning>\n\n</reasoning>\n\n"),
        ("◁think▷", "◁think▷\n\n◁/think▷\n\n"),
        (
            "<|channel|>analysis<|message|>",
            "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        ("<think></think><thought>", "<think></think><thought>\n\n</thought>\n\n"),
        ("<think>\n\n</think>", "<think>\n\n</think>"),
    ],
)
def test_every_thought_that_a_template_opens_is_closed(lm, opened, closed):
    lm.tokenizer.chat_template = CHATML + opened
    assert lm.chat("<think> what?") == f"<user><think> what?<assistant>{closed}"
    assert chat_template.answer_in(f"{closed}the answer") == "the answer"


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("{{ range(10**5)|random }}" + CHATML, "writes another text each time"),
        (CHATML + "{{ range(10**5)|random }}", "writes another text each time"),
        (TURNS, "does not write where the assistant's answer begins"),
        (
            "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>\n{% endfor %}",
            "does not write where the assistant's answer begins",
        ),
        (TURNS + CHATML, "does not write a user's text once"),
        (
            NOT_EMPTY.replace("['content']", "['content'].strip()")
            + "<system>You are X{% set messages = messages[1:] if messages[0]['role'] == 'system' "
            "else messages %}{% endif %}" + CHATML,
            "shows a system prompt of its own",
        ),
    ],
)
def test_what_cannot_be_used_is_named(lm, template, wrong):
    lm.tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"chat template of tiny-llama {wrong}"):
        lm.chat("hi")
