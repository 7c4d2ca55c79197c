"""What kind of release it is, in the words that hold for that kind and no other."""

from dataclasses import dataclass, replace

from ppfr_ops.contracts.manifest import Manifest, ReleaseManifest


@dataclass(frozen=True)
class Mode:
    """What kind of release it is."""

    name: str
    words: str
    linked: str
    """Whom a picture leads to, before anything was measured."""
    recognition: str
    """What recognition means for the licensed user and for everybody else."""
    still_personal: bool = True
    """Whether it has to be treated as personal data whatever the attacks found."""


_SOMEBODY_ELSE = (
    "The pictures show people who do not exist: photos of one person match each other, and are "
    "made so that they do not match the person. Anyone who holds the key of the release can say "
    "who is whom; whether it is personal data for others is a question for lawyers: treat it as "
    "such."
)
_THEMSELVES = (
    "Every picture still is personal data for anyone who holds another photo of the person and a "
    "face recognition model: recognition works on it, and so does finding people in it."
)
_ONE_FIGURE = (
    "One figure seen from two sides: what lets the licensed user recognise people lets anybody "
    "with another photo re-identify them."
)
_APART = (
    "Two figures that have nothing to do with each other: the licensed user recognises the people "
    "in the pictures, who do not exist; how often a photo of a living person leads to that "
    "person's records stands beside what chance gives."
)

NOBODY = Mode(
    "people who do not exist",
    "Every picture shows a person that a key drew; no pixel and no feature of a face went into it. "
    "What is left of the originals is the grouping of the records, how many there are, and the "
    "columns that were kept.",
    f"{_SOMEBODY_ELSE} No picture depends on a photo.",
    _APART,
    still_personal=False,
)
STAND_INS = Mode(
    "virtual people, moved by the originals",
    "Every person has a virtual one in their place. What photos of a person differ by still comes "
    "from the photos.",
    f"{_SOMEBODY_ELSE} But the pictures are made from the faces by a secret that can be learned: "
    "anyone who knows which published pictures belong to some originals may link other people.",
    _APART,
)
PRIVATE = Mode(
    "differential privacy",
    "Noise bounds what any picture can tell of the face that it was made of, or of the person.",
    "The noise bounds what a picture tells of the face or person that it was made of, by as much "
    "as epsilon says; it bounds nothing that others know besides.",
    "The noise takes from both sides: what the licensed user still recognises, within the bound, "
    "others may find as well.",
)
SAME = Mode(
    "the same person, drawn anew",
    "The picture keeps what recognisers know people by and changes what people see. Anyone who has "
    "another photo of a person can find that person: that is what it is for.",
    _THEMSELVES,
    _ONE_FIGURE,
)
CHANGED = Mode(
    "originals, changed",
    "The picture is the original with some of it taken out or covered.",
    _THEMSELVES,
    _ONE_FIGURE,
)


def mode_of(made: Manifest | ReleaseManifest) -> Mode:
    """The mode of a release."""
    kept = str(made.method.options.get("keep_look", "")).replace(",", " and ")
    if made.method.private and not kept:
        return PRIVATE
    if made.options.get("reads_faces") is False:
        if not kept:
            return NOBODY
        of_photo = f"Of its photo a picture has the {kept}, in a few bins, and nothing else."
        if made.method.private:
            of_photo += (
                " Bins are noised by randomised response: what they tell of a photo is bounded by "
                f"epsilon {made.method.figures['epsilon']:g}, of a person by that times the photos."
            )
        return replace(
            NOBODY,
            words=f"{NOBODY.words.replace('no feature', 'no other feature')} {of_photo}",
            linked=f"{_SOMEBODY_ELSE} {of_photo}",
        )
    if made.method.options.get("identity") == "virtual":
        return STAND_INS
    return SAME if made.method.draws_faces else CHANGED
