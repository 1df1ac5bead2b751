"""The recipe of the demonstration model: its examples are right, and what it writes is what an engine loads."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from models.recipe import wordings
from models.recipe.examples import TASKS, Example, Split, Subject, example, examples
from models.recipe.notes import THINGS, TOPICS, note, sentence
from models.recipe.tables import Row, shapes
from models.recipe.wordings import Wordings
from pg_bridge.asking.prompt import parse_question, render
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table

SPLITS = [Split(), Split(shapes="held out", wordings="held out")]


def some(task: str, count: int = 120, split: Split = SPLITS[0]) -> list[Example]:
    rng = random.Random(7)
    return [example(rng, task, split) for _ in range(count)]  # type: ignore[arg-type]


def column_asked(each: Example) -> str:
    named = parse_question(each.prompt).columns
    assert len(named) == 1
    return named[0]


def spoken(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_examples_are_the_same_for_a_seed_and_others_for_another() -> None:
    first, again, other = (list(islice(examples(random.Random(seed)), 50)) for seed in (1, 1, 2))
    assert first == again
    assert not set(map(repr, first)) & set(map(repr, other))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", TASKS)
def test_the_column_asked_about_is_in_the_row_and_the_answer_among_the_choices(task: str, split: Split) -> None:
    for each in some(task, split=split):
        assert column_asked(each) in each.row
        assert not each.choices or each.answer in each.choices
        assert len(set(each.choices)) == len(each.choices)


def test_a_value_is_that_of_the_column_asked_about() -> None:
    for each in some("value"):
        assert each.answer == spoken(each.row[column_asked(each)])


def test_a_mention_is_in_the_column_asked_about_and_nowhere_else_counts() -> None:
    answers = {"yes": 0, "no": 0, "one of several": 0}
    elsewhere = 0
    for each in some("mention", 750):
        column = column_asked(each)
        text = spoken(each.row[column]).casefold()
        if each.answer not in {"yes", "no"}:
            answers["one of several"] += 1
            assert [word for word in each.choices if re.search(rf"\b{re.escape(word.casefold())}\b", text)] == [
                each.answer
            ]
            continue
        answers[each.answer] += 1
        beside = " ".join(spoken(value) for name, value in each.row.items() if name != column).casefold()
        words = set(re.findall(r"[^\W\d_]{4,}", each.question.casefold()))
        words -= set(re.findall(r"[^\W\d_]+", column.casefold()))
        elsewhere += each.answer == "no" and any(word in beside and word not in text for word in words)
    assert min(answers.values()) > 150
    assert elsewhere > 25


def test_labels_are_balanced_by_place() -> None:
    places = [each.choices.index(each.answer) for each in some("label", 1000) if len(each.choices) == 3]
    assert len(places) > 100
    assert min(places.count(place) for place in range(3)) > len(places) / 5


def test_a_word_is_one_token_however_it_is_spelt_and_wherever_it_stands() -> None:
    vocabulary = pytest.importorskip("models.recipe.vocabulary")
    texts = ['{"note": "kettle, Kettle, dozen"}'] * 20
    tokenizer = vocabulary.learn_tokenizer(texts, 300, 20)
    for word in ("kettle", "Kettle", "dozen"):
        for written in (word, " " + word):
            (ids,) = vocabulary.encode(tokenizer, [written])
            assert len(ids) == 1
            assert tokenizer.decode(ids) == written
    (ids,) = vocabulary.encode(tokenizer, ["naïve 12"])
    assert len(ids) > 4
    assert tokenizer.decode(ids) == "naïve 12"


def hinted(each: Example, kind: str) -> list[tuple[str, int]]:
    """The words of a message, and what is told of them."""
    hints = pytest.importorskip("models.recipe.hints")
    words = list(re.finditer(r"\w+|[^\w\s]", each.message))
    told = hints.hints(each, [word.end() for word in words])[:, hints.KINDS.index(kind)]
    return [(word.group(), value) for word, value in zip(words, told.tolist(), strict=True)]


def test_hints_tell_the_column_asked_about_and_the_words_looked_for() -> None:
    row: Row = {"b": "a red kettle", "a": "one red cup"}
    about = Subject(row, "a")
    each = Example("mention", "Does {a} mention red?", row, "yes", ("yes", "no"), about, ("red",))
    assert [word for word, told in hinted(each, "asked") if told == 1] == ["a", "a", '"', "one", "red", "cup", '"']
    assert [word for word, told in hinted(each, "match") if told == 1] == ["red", "red", "red"]
    assert [word for word, told in hinted(each, "hit") if told == 1] == ["red"]
    assert [word for word, told in hinted(each, "found") if told == 1] == ["red", "cup", '"', "}"]


def test_hints_tell_the_topic_of_a_text_and_of_labels() -> None:
    for each in some("label", 100):
        told = {value for _, value in hinted(each, "topic")} - {-1}
        assert each.about.topic is not None
        assert TOPICS.index(each.about.topic) in told
        labels = {label.casefold(): place for place, topic in enumerate(TOPICS) for label in topic.labels}
        assert told <= {labels.get(word.casefold(), -1) for word in each.words} | {TOPICS.index(each.about.topic)}


@pytest.mark.slow  # for the import of torch
def test_column_order_is_all_that_planning_changes() -> None:
    pytest.importorskip("torch")
    from models.recipe.scores import planned  # noqa: PLC0415 - needs torch

    given = some("value", 100)
    moved = 0
    for each, other in zip(given, planned(given, seed=0), strict=True):
        assert (other.row, other.answer, other.prompt) == (each.row, each.answer, each.prompt)
        moved += list(other.row) != list(each.row)
    assert moved > 25


def test_a_conversation_is_what_the_chat_template_writes() -> None:
    jinja2 = pytest.importorskip("jinja2")
    vocabulary = pytest.importorskip("models.recipe.vocabulary")
    for system in ("Be brief.", ""):
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": "What is a?"})
        written = jinja2.Template(vocabulary.CHAT_TEMPLATE).render(messages=messages, add_generation_prompt=True)
        assert written == vocabulary.conversation(system, "What is a?")


def test_messages_are_those_that_pg_bridge_sends() -> None:
    for each in some("value", 100):
        table = Table.from_json([json.dumps(each.row, ensure_ascii=False)], list(each.row))
        question = parse_question(each.prompt)
        (sent,) = render(question, table, plan(table, reorder="none"))
        assert sent == each.message


def test_what_is_held_out_is_not_seen() -> None:
    for name, value in vars(wordings).items():
        if isinstance(value, Wordings):
            assert value.held_out, name
            assert not set(value.seen) & set(value.held_out), name
    seen, held_out = ({shape.name for shape in shapes(which)} for which in ("seen", "held out"))
    assert len(seen) >= 20
    assert len(held_out) >= 4
    assert not seen & held_out


def test_no_label_belongs_to_two_topics() -> None:
    labels = [label for topic in TOPICS for label in topic.labels]
    assert len(labels) == len(set(labels))


def test_a_sentence_holds_its_word() -> None:
    rng = random.Random(1)
    for word in THINGS["nouns"][:200]:
        assert word in sentence(rng, word)


def test_a_note_has_words_of_its_topic() -> None:
    rng = random.Random(1)
    for topic in TOPICS:
        for _ in range(5):
            text = note(rng, topic).casefold()
            assert any(word.casefold() in text for word in topic.words), text


@pytest.mark.slow  # for the import of torch and transformers; that vLLM loads them is seen in test_demo_model.py
def test_the_files_load_and_mean_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: PLC0415 - heavy

    from models.recipe.decoder import Decoder, Size  # noqa: PLC0415 - needs torch
    from models.recipe.vocabulary import conversation, learn_tokenizer, write_tokenizer  # noqa: PLC0415 - as above

    texts = [each.message for each in islice(examples(random.Random(0)), 300)]
    tokenizer = learn_tokenizer(texts, 600, 20)
    size = Size(hidden=128, layers=2, heads=2, intermediate=192, vocabulary=tokenizer.get_vocab_size())
    torch.manual_seed(0)
    decoder = Decoder(size)
    for parameter in decoder.parameters():
        parameter.data = (parameter.data * 4).half().float()  # as the file keeps them
    decoder.save(tmp_path)
    write_tokenizer(tokenizer, tmp_path)

    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Is a b?\n{"a": "é 1207"}'}]
    text = loaded.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == conversation("Be brief.", 'Is a b?\n{"a": "é 1207"}')
    ids = loaded(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert loaded.decode(ids) == text
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits
        found = decoder.scores(decoder(torch.tensor([ids])))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert wanted.abs().max() > 1
