"""What counts as a word for the search: as it is written, and in Chinese every two neighbouring characters.

Words are not reduced to stems: what is looked for here is mostly a name, and a beginning of a word
finds it too.

Chinese has no blanks between words. Two characters are the length of most words, and a longer one is
found by its pairs; so no dictionary is needed, and the browser cuts a question as the index was cut.
"""

import re
from typing import Final

from sphinx.search import SearchLanguage, languages
from sphinx.search.en import SearchEnglish

# A run of Han characters, or of what else belongs into a word.
_RUN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]+|[^\W\u3400-\u4dbf\u4e00-\u9fff]+")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


class Words(SearchLanguage):
    """English, and Chinese by pairs."""

    lang = "en"
    language_name = "English"
    stopwords = SearchEnglish.stopwords

    # The same as ``split``, for what is typed.
    js_splitter_code = r"""
function splitQuery(query) {
    const han = "\\u3400-\\u4dbf\\u4e00-\\u9fff";
    const runs = new RegExp(`[${han}]+|(?:(?![${han}])[\\p{Letter}\\p{Number}_])+`, "gu");
    const pairs = (run) => [...run].slice(1).map((character, at) => run[at] + character);
    return (query.match(runs) || []).flatMap(
        (run) => (run.length > 1 && new RegExp(`[${han}]`, "u").test(run) ? pairs(run) : [run]),
    );
}
"""

    def split(self, input: str) -> list[str]:
        """Return the words of a text."""
        found: list[str] = []
        for run in _RUN.findall(input):
            if _HAN.match(run) and len(run) > 1:
                found += (run[at : at + 2] for at in range(len(run) - 1))
            else:
                found.append(run)
        return found


def use() -> None:
    """Search by these words."""
    languages["en"] = Words
