"""Ids that are words, as some labelling tools write them (UUIDs, names): numbers in place of them that read alike."""

from typing import Any

from detection.values import whole_number

_REFERENCES = {"images": "image_id", "categories": "category_id", "annotations": None}


class NumberedWord(int):
    """The number that stands for an id, which messages show as the file has it; JSON takes it for the number."""

    word: str

    def __new__(cls, number: int, word: str) -> "NumberedWord":
        """The number `number`, shown as `word`."""
        made = super().__new__(cls, number)
        made.word = word
        return made

    def __str__(self) -> str:
        return self.word

    def __repr__(self) -> str:
        return repr(self.word)

    def __format__(self, form: str) -> str:
        return format(self.word, form)


def number_words(document: dict[str, Any]) -> int:
    """Give images, annotations and categories whose ids are words numbers above all others, in the order of the words,
    and their references too, in place. A reference to none of them stays a word, for the check of fields to refuse.

    Args:
        document: an annotation file with its three lists.

    Returns:
        How many ids were words.
    """
    count = 0
    for kind, reference in _REFERENCES.items():
        entries = [entry for entry in document[kind] if isinstance(entry, dict)]
        words = sorted({entry["id"] for entry in entries if _is_word(entry.get("id"))})
        if not words:
            continue
        others = (whole_number(entry.get("id")) for entry in entries)
        first = 1 + max((number for number in others if number is not None), default=0)
        numbers = {word: NumberedWord(number, word) for number, word in enumerate(words, first)}
        for entry in entries:
            if _is_word(entry.get("id")):
                entry["id"] = numbers[entry["id"]]
        for entry in document["annotations"] if reference else ():
            if isinstance(entry, dict) and _is_word(entry.get(reference)):
                entry[reference] = numbers.get(entry[reference], entry[reference])
        count += len(words)
    return count


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and whole_number(value) is None
