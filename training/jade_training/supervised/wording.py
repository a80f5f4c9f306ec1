"""Steps that data sets write as triples, asked in words.

Invariant: the subject and a reference ("#1") stand in the question as they stood in the triple.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TRIPLE = re.compile(r"(.+?)\s*>>\s*(.+)", re.DOTALL)

# Relations of Wikidata as MuSiQue has them. What is not here is a noun ("performer") or a phrase with a verb in it.
_ASKED: Mapping[str, str] = {
    "applies to jurisdiction": "Where does {} apply?",
    "author": "Who is the author of {}?",
    "capital": "What is the capital of {}?",
    "capital of": "What is {} the capital of?",
    "cast member": "Who is in the cast of {}?",
    "cause of death": "What did {} die of?",
    "child": "Who is the child of {}?",
    "composer": "Who composed {}?",
    "conflict": "In which conflict did {} take part?",
    "continent": "On which continent is {}?",
    "country": "In which country is {}?",
    "country of citizenship": "Of which country is {} a citizen?",
    "country of origin": "Which country does {} come from?",
    "creator": "Who created {}?",
    "date of birth": "When was {} born?",
    "date of death": "When did {} die?",
    "designed by": "Who designed {}?",
    "developer": "Who developed {}?",
    "director": "Who directed {}?",
    "distributor": "Who distributed {}?",
    "educated at": "Where was {} educated?",
    "employer": "Who employed {}?",
    "father": "Who is the father of {}?",
    "followed by": "What came after {}?",
    "follows": "What came before {}?",
    "founded by": "Who founded {}?",
    "genre": "Of which genre is {}?",
    "has part": "What is a part of {}?",
    "head of government": "Who is the head of government of {}?",
    "headquarters location": "Where are the headquarters of {}?",
    "inception": "When was {} founded?",
    "instance of": "What is {}?",
    "league": "In which league does {} play?",
    "licensed to broadcast to": "Where is {} licensed to broadcast to?",
    "located in or next to body of water": "On which body of water is {}?",
    "located in the administrative territorial entity": "In which state, county or district is {}?",
    "location": "Where is {}?",
    "location of formation": "Where was {} formed?",
    "manufacturer": "Who made {}?",
    "member of": "What is {} a member of?",
    "member of political party": "Which party does {} belong to?",
    "member of sports team": "For which team did {} play?",
    "mother": "Who is the mother of {}?",
    "mouth of the watercourse": "Where does {} flow into?",
    "named after": "Who or what is {} named after?",
    "native language": "What is the native language of {}?",
    "occupation": "What does {} work as?",
    "original network": "On which network was {} first shown?",
    "owned by": "Who owns {}?",
    "part of": "What is {} a part of?",
    "performer": "Who performed {}?",
    "place of birth": "Where was {} born?",
    "place of burial": "Where is {} buried?",
    "place of death": "Where did {} die?",
    "position held": "Which position did {} hold?",
    "producer": "Who produced {}?",
    "production company": "Which company produced {}?",
    "publisher": "Who published {}?",
    "record label": "On which label did {} record?",
    "religion": "What is the religion of {}?",
    "residence": "Where did {} live?",
    "screenwriter": "Who wrote {}?",
    "shares border with": "What does {} share a border with?",
    "sibling": "Who is a sibling of {}?",
    "sport": "Which sport is {} about?",
    "spouse": "Who is married to {}?",
    "subclass of": "What kind of thing is {}?",
    "twinned administrative body": "Which town is twinned with {}?",
    "work location": "Where did {} work?",
}
_LINKING = ("of", "in", "by", "to", "at", "with", "from", "on", "for", "after")


def asked(text: str) -> str:
    """A step as a question: the triple "Hello Love >> performer" is asked as "Who performed Hello Love?".

    A relation that is not known is asked for as a noun ("What is the mascot of ..?"), or, where it ends with a word
    that wants something after it, as what stands there ("distributed by": "What is .. distributed by?").
    """
    found = _TRIPLE.fullmatch(text.strip())
    if found is None:
        return text
    about, relation = found[1].strip(), found[2].strip()
    known = _ASKED.get(relation.casefold())
    if known is not None:
        return known.replace("{}", about)
    first, _, rest = relation.partition(" ")
    if rest and relation.rsplit(None, 1)[-1].casefold() in _LINKING:
        noun = not first.casefold().endswith(("ed", "s", "en", "t")) or first.casefold() in ("part", "parts")
        return f"What is {about} {'the ' if noun else ''}{relation}?"
    return f"What is the {relation} of {about}?"


__all__ = ["asked"]
