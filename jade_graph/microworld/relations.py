"""What can be said and asked about an entity: each relation in several wordings.

Invariant: every wording of a statement holds `{s}` and `{v}` once, every wording of a question `{x}` once, and no two
relations share a wording. The first question wording is the canonical one, which only sub-questions use.
"""

from __future__ import annotations

from dataclasses import dataclass

from jade_graph.microworld.lexicon import COUNTRIES, JOBS, PRODUCTS, SUBJECTS, YEARS, EntityKind


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of an entity of kind `subject` to an entity (`target`) or to one of `values`.

    `mutable` relations change between editions of a passage. `phrases` name the value by its subject ("the director
    of {x}"), `constraints` restrict the subject by its value ("directed by {v}"); `keyword` is for search queries.
    """

    name: str
    subject: EntityKind
    target: EntityKind | None
    values: tuple[str, ...]
    keyword: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    mutable: bool = False


RELATIONS: dict[str, Relation] = {
    r.name: r
    for r in (
        Relation(
            "born_in", "person", "city", (), "birthplace",
            ("{s} was born in {v}.", "The birthplace of {s} is {v}.", "{s} comes from {v}.", "{s} is a native of {v}."),
            ("Where was {x} born?", "What is the birthplace of {x}?", "In which city was {x} born?",
             "Which city does {x} come from?", "Of which city is {x} a native?"),
            ("the birthplace of {x}", "the city that {x} comes from"),
        ),
        Relation(
            "birth_year", "person", None, YEARS, "birth year",
            ("{s} was born in the year {v}.", "The birth year of {s} is {v}.", "{s} came into the world in {v}.",
             "The year {v} saw the birth of {s}."),
            ("When was {x} born?", "What is the birth year of {x}?", "In which year was {x} born?",
             "Which year saw the birth of {x}?", "In what year did {x} come into the world?"),
        ),
        Relation(
            "job", "person", None, JOBS, "profession",
            ("{s} works as a {v}.", "The profession of {s} is {v}.", "{s} earns a living as a {v}.",
             "By trade {s} is a {v}."),
            ("What is the profession of {x}?", "What does {x} do for a living?", "As what does {x} work?",
             "What is {x} by trade?", "Which profession does {x} have?"),
        ),
        Relation(
            "employer", "person", "company", (), "employer",
            ("{s} is employed by {v}.", "The employer of {s} is {v}.", "{s} has a post at {v}.",
             "{s} is on the staff of {v}."),
            ("Who employs {x}?", "Which company employs {x}?", "What is the employer of {x}?",
             "At which company does {x} have a post?", "On the staff of which company is {x}?"),
            ("the employer of {x}", "the company that employs {x}"),
        ),
        Relation(
            "director", "film", "person", (), "director",
            ("{s} was directed by {v}.", "The director of {s} is {v}.", "{v} directed {s}.",
             "{v} sat in the chair of the director of {s}."),
            ("Who directed {x}?", "Who is the director of {x}?", "By whom was {x} directed?",
             "Which director made {x}?", "Who was it that directed {x}?"),
            ("the director of {x}", "the person who directed {x}"),
            ("directed by {v}", "made by the director {v}"),
        ),
        Relation(
            "release_year", "film", None, YEARS, "release year",
            ("{s} came out in {v}.", "The release year of {s} is {v}.", "{s} was released in {v}.",
             "Cinemas first showed {s} in {v}."),
            ("When did {x} come out?", "What is the release year of {x}?", "In which year was {x} released?",
             "In what year did cinemas first show {x}?", "When was {x} released?"),
            (), ("released in {v}", "first shown in {v}"),
        ),
        Relation(
            "star", "film", "person", (), "star",
            ("{s} stars {v}.", "The lead role of {s} went to {v}.", "{v} plays the lead in {s}.",
             "The star of {s} is {v}."),
            ("Who stars in {x}?", "Who plays the lead in {x}?", "Who is the star of {x}?",
             "To whom did the lead role of {x} go?", "Who has the lead role in {x}?"),
            ("the star of {x}", "the person who plays the lead in {x}"),
        ),
        Relation(
            "studio", "film", "company", (), "studio",
            ("{s} was produced by {v}.", "The studio behind {s} is {v}.", "{v} produced {s}.", "{v} paid for {s}."),
            ("Who produced {x}?", "Which company produced {x}?", "What is the studio behind {x}?",
             "Which studio paid for {x}?", "By which company was {x} produced?"),
            ("the studio behind {x}", "the company that produced {x}"),
            ("produced by {v}", "paid for by {v}"),
        ),
        Relation(
            "author", "book", "person", (), "author",
            ("{s} was written by {v}.", "The author of {s} is {v}.", "{v} wrote {s}.", "{s} is the work of {v}."),
            ("Who wrote {x}?", "Who is the author of {x}?", "By whom was {x} written?", "Whose work is {x}?",
             "Which author wrote {x}?"),
            ("the author of {x}", "the person who wrote {x}"),
            ("written by {v}", "made by the author {v}"),
        ),
        Relation(
            "publication_year", "book", None, YEARS, "publication year",
            ("{s} was published in {v}.", "The publication year of {s} is {v}.", "{s} reached the shops in {v}.",
             "Readers first saw {s} in {v}."),
            ("When was {x} published?", "What is the publication year of {x}?", "In which year was {x} published?",
             "In what year did {x} reach the shops?", "When did readers first see {x}?"),
            (), ("published in {v}", "first read in {v}"),
        ),
        Relation(
            "subject", "book", None, SUBJECTS, "subject",
            ("{s} is about {v}.", "The subject of {s} is {v}.", "{s} deals with {v}.", "{s} tells of {v}."),
            ("What is {x} about?", "What is the subject of {x}?", "Which subject does {x} have?",
             "With what does {x} deal?", "Of what does {x} tell?"),
        ),
        Relation(
            "publisher", "book", "company", (), "publisher",
            ("{s} was printed by {v}.", "The publisher of {s} is {v}.", "{v} published {s}.",
             "{v} brought {s} to market."),
            ("Who published {x}?", "Which company published {x}?", "Who is the publisher of {x}?",
             "Which company brought {x} to market?", "By which company was {x} printed?"),
            ("the publisher of {x}", "the company that published {x}"),
            ("printed by {v}", "brought to market by {v}"),
        ),
        Relation(
            "country", "city", None, COUNTRIES, "country",
            ("{s} lies in {v}.", "{s} is a city of {v}.", "The country of {s} is {v}.", "{s} belongs to {v}."),
            ("In which country is {x}?", "Where does {x} lie?", "What is the country of {x}?",
             "To which country does {x} belong?", "Which country has {x} as a city?"),
        ),
        Relation(
            "founding_year", "city", None, YEARS, "founding year",
            ("{s} was founded in {v}.", "{s} dates back to {v}.", "The founding year of {s} is {v}.",
             "Settlers built {s} in {v}."),
            ("When was {x} founded?", "What is the founding year of {x}?", "In which year was {x} founded?",
             "To which year does {x} date back?", "In what year did settlers build {x}?"),
        ),
        Relation(
            "mayor", "city", "person", (), "mayor",
            ("The mayor of {s} is {v}.", "{v} is the mayor of {s}.", "{s} has {v} as its mayor.",
             "{v} governs {s}."),
            ("Who is the mayor of {x}?", "Who governs {x}?", "Whom does {x} have as its mayor?",
             "Who serves as mayor of {x}?", "By whom is {x} governed?"),
            ("the mayor of {x}", "the person who governs {x}"),
            mutable=True,
        ),
        Relation(
            "head", "company", "person", (), "head",
            ("{s} is led by {v}.", "The head of {s} is {v}.", "{v} runs {s}.", "{v} is in charge of {s}."),
            ("Who runs {x}?", "Who is the head of {x}?", "By whom is {x} led?", "Who leads {x}?",
             "Who is in charge of {x}?"),
            ("the head of {x}", "the person who runs {x}"),
            mutable=True,
        ),
        Relation(
            "office", "company", "city", (), "office",
            ("{s} has its office in {v}.", "{s} is based in {v}.", "The home of {s} is {v}.", "{s} works out of {v}."),
            ("Where is {x} based?", "In which city does {x} have its office?", "What is the home of {x}?",
             "Out of which city does {x} work?", "Which city is the home of {x}?"),
            ("the home of {x}", "the city where {x} is based"),
            mutable=True,
        ),
        Relation(
            "product", "company", None, PRODUCTS, "product",
            ("{s} makes {v}.", "The product of {s} is {v}.", "{s} sells {v}.", "{s} is known for {v}."),
            ("What does {x} make?", "What is the product of {x}?", "What does {x} sell?", "For what is {x} known?",
             "Which product does {x} sell?"),
            mutable=True,
        ),
    )
}  # fmt: skip


def relations_of(kind: EntityKind) -> tuple[Relation, ...]:
    """The relations whose subject is of `kind`, in a fixed order."""
    return tuple(r for r in RELATIONS.values() if r.subject == kind)
