"""How users ask: the wordings of each task, in braces as SQL has them. The last of each list are held out.

`{c}` stands for the column's name in braces, `{w}` for the word asked about, `{l}` for the list of labels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wordings:
    """Wordings to train on, and others that only scores see."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]


SENTIMENT = Wordings(
    seen=(
        "What is the sentiment of {c}? Answer {l}.",
        "What is the sentiment of {c}: {l}?",
        "Is {c} {l}?",
        "Is the sentiment of {c} {l}?",
        "Is the tone of {c} {l}?",
        "Classify the sentiment of {c} as {l}.",
        "Classify {c} as {l}.",
        "Rate {c}: {l}.",
        "Sentiment of {c} ({l})?",
        "Does {c} sound {l}?",
        "How does the author of {c} feel about it: {l}?",
        "How does the writer of {c} feel? Answer with one of {l}.",
        "The attitude of {c} is {l}. Which one?",
        "Would you call {c} {l}?",
        "Decide whether {c} is {l}.",
        "Label {c} with its sentiment. Labels: {l}.",
        "Choose the sentiment of {c} from {l}.",
        "Read {c}. Is its author's opinion {l}?",
        "{l}: which of these is {c}?",
        "What mood is {c} in? One of: {l}.",
        "Tell whether {c} is {l}",
        "{c} is {l}",
        "Pick one: {l}. What is {c}?",
    ),
    held_out=(
        "Judge the sentiment that {c} expresses: {l}.",
        "On the whole, is {c} {l}?",
        "Which sentiment has {c}? Choose from {l}.",
        "Say if {c} is {l}.",
    ),
)

OPINION = Wordings(
    seen=(
        "What is the sentiment of {c}?",
        "What is the sentiment of {c}? Answer with one word.",
        "Sentiment of {c}?",
        "Classify the sentiment of {c}.",
        "How does the author of {c} feel about it?",
    ),
    held_out=("Name the sentiment of {c}.", "Which sentiment does {c} express?"),
)

PRAISE = Wordings(  # yes for a positive text, no for a negative one
    seen=(
        "Is {c} positive?",
        "Is {c} kind?",
        "Is {c} favourable?",
        "Does {c} recommend it?",
        "Does the author of {c} like it?",
        "Did the writer of {c} enjoy it?",
        "Is the author of {c} happy?",
        "Was the author of {c} satisfied?",
        "Does {c} praise it?",
        "Is {c} a good review?",
    ),
    held_out=("Is {c} a positive opinion?", "Did the author of {c} like what they got?"),
)

BLAME = Wordings(  # the other way round
    seen=(
        "Is {c} negative?",
        "Is {c} unkind?",
        "Does {c} complain?",
        "Is {c} a complaint?",
        "Is the author of {c} disappointed?",
        "Was the writer of {c} unhappy?",
        "Does {c} advise against it?",
        "Is {c} a bad review?",
    ),
    held_out=("Is {c} a negative opinion?", "Did {c}'s author dislike it?"),
)

MENTION = Wordings(
    seen=(
        "Does {c} mention {w}?",
        "Does {c} mention the {w}?",
        "Does {c} mention the word {w}?",
        "Is {w} mentioned in {c}?",
        "Does {c} contain the word {w}?",
        "Does {c} contain {w}?",
        "Does {c} say anything about {w}?",
        "Does {c} speak of {w}?",
        "Does {c} talk about the {w}?",
        "Does the word {w} occur in {c}?",
        "Is there {w} in {c}?",
        "Is the word '{w}' in {c}?",
        "Does {w} appear in {c}?",
        "Do you find {w} in {c}?",
        "Does {c} name {w}?",
        "Does {c} include the word {w}? Answer yes or no.",
        "Yes or no: does {c} mention {w}?",
        "Does anything in {c} mention {w}?",
        "Is {w} named in {c}?",
        "Does {c} refer to {w}?",
    ),
    held_out=(
        "Can the word {w} be found in {c}?",
        "Does {c} bring up {w}?",
        "Is the {w} mentioned anywhere in {c}?",
        "Say whether {c} mentions {w}.",
    ),
)

WHICH = Wordings(  # one of several words
    seen=(
        "Which of {l} does {c} mention?",
        "Which of these words is in {c}: {l}?",
        "What does {c} mention: {l}?",
        "Which one occurs in {c}: {l}?",
        "{l}: which of them does {c} name?",
        "Which word stands in {c}? {l}",
        "Find the word that {c} contains: {l}.",
    ),
    held_out=("Which of the words {l} can be found in {c}?", "Out of {l}, what does {c} speak of?"),
)

ABOUT = Wordings(  # a topic, with no list to choose from
    seen=(
        "What is {c} about?",
        "What is the topic of {c}?",
        "What is the subject of {c}?",
        "What does {c} deal with?",
        "Name the topic of {c}.",
        "Which topic does {c} have?",
    ),
    held_out=("What subject is {c} on?", "Tell me the topic of {c}."),
)

TOPIC = Wordings(
    seen=(
        "Is {c} about {w}?",
        "Is the subject of {c} {w}?",
        "Does {c} deal with {w}?",
        "Does {c} have to do with {w}?",
        "Does {c} belong to {w}?",
        "Is {w} the topic of {c}?",
        "Does {c} concern {w}?",
        "Is {c} a matter of {w}?",
        "Would you file {c} under {w}?",
    ),
    held_out=("Is {w} what {c} is about?", "Is {c} related to {w}?"),
)

LABEL = Wordings(
    seen=(
        "What is {c} about: {l}?",
        "Is {c} about {l}?",
        "Which topic does {c} have: {l}?",
        "Which of these fits {c}: {l}?",
        "Pick a label for {c}: {l}.",
        "Pick the label that fits {c}. Labels: {l}.",
        "Choose the category of {c} from {l}.",
        "Classify {c} as {l}.",
        "Label {c} as {l}.",
        "Which category is {c}? {l}",
        "Does {c} belong to {l}?",
        "Which department should get {c}: {l}?",
        "Sort {c} into one of: {l}.",
        "The topic of {c} is one of {l}. Which?",
        "{l}: what does {c} deal with?",
        "What is the subject of {c}? Choose one: {l}.",
        "Assign one of {l} to {c}.",
        "Is the subject of {c} {l}?",
        "Does {c} have to do with {l}?",
        "Tag {c} with one of {l}",
        "Route {c} to {l}.",
        "File {c} under {l}.",
    ),
    held_out=(
        "From {l}, select what {c} is about.",
        "Which label describes {c} best: {l}?",
        "Decide on a category for {c}: {l}.",
        "What does {c} treat: {l}?",
    ),
)

VALUE = Wordings(
    seen=(
        "What is the {c}?",
        "What is {c}?",
        "What is the value of {c}?",
        "What is the value of the column {c}?",
        "What does the column {c} hold?",
        "Give the {c}.",
        "Give the value of {c}.",
        "Return {c}.",
        "Return the value of {c}.",
        "Which {c} does the row have?",
        "Which {c} is it?",
        "Tell me the {c}.",
        "Say what {c} is.",
        "Repeat {c}.",
        "Copy the value of {c}.",
        "Name the {c} of this row.",
        "Show {c}",
        "{c}?",
        "Read {c} out.",
        "What stands in {c}?",
        "The {c} of the row, please.",
        "Extract {c}.",
        "Output the column {c} as it is.",
    ),
    held_out=(
        "State the value of {c}.",
        "What value does {c} have?",
        "Please tell what the {c} is.",
        "Print {c}.",
    ),
)

EQUALS = Wordings(
    seen=(
        "Is {c} {w}?",
        "Is the {c} {w}?",
        "Is the value of {c} {w}?",
        "Is {c} equal to {w}?",
        "Is {c} the same as {w}?",
        "Does {c} equal {w}?",
        "Is the {c} of this row {w}?",
        "Is it true that {c} is {w}?",
        "Does the column {c} hold {w}?",
    ),
    held_out=("Does {c} have the value {w}?", "Is {w} the {c}?"),
)
