"""The options of ``ppfr sanitize``: what is to be done, whatever engine does it.

Long because every option is declared once, with its words, and here.
"""

from typing import Literal

from pydantic import Field

from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.marks import SOURCE_TYPES
from ppfr_ops.options import Options, decisive, option, owners_file
from ppfr_ops.recognizers import RecognizerSpec
from ppfr_ops.sanitize.photographs.options import PhotographOptions

Template = Literal["arcface", "ffhq", "celeba", "mtcnn", "mtcnn-160", "mtcnn-182"]
"""By which faces may be aligned (``imaging.templates``)."""

Level = Literal["full", "basic", "none"]


class SanitizeOptions(Options):
    """What is to be done. Every field but ``photographs`` is an option of the command line; the
    repr hides everything that names a source."""

    input: str = option(
        ...,
        "File, folder, glob or fsspec URL of the pictures to sanitize; a table of Delta, Iceberg "
        "or Lance too, at a version by TABLE@VERSION.",
        private=True,
    )
    output: str = option(..., "Folder or fsspec URL that the output is written to.", private=True)
    input_format: str = option(
        "auto",
        "Form of the input: parquet, images (a tree of picture files), webdataset, tar, tar.gz, "
        "zip, arrow, hdf5, parquet-lists, arrow-lists, recordio, verification, numpy, paths, or "
        "what an installed package adds (docs/inputs.md). auto decides by the files' names.",
        manifest=True,
    )
    align: Literal["check", "auto", "off", Template] = decisive(
        "check",
        "How the faces are aligned, if the input is aligned faces. check: look at the first, and "
        "say or refuse if their eyes are not in place. auto: what another known template aligned "
        "is turned into 112x112. A name: that template did. off: take them as they are.",
        manifest=True,
    )
    image_column: str | None = decisive(
        None,
        "Column of the pictures: binary, or the image struct of Hugging Face datasets. WebDataset: "
        "extension of the pictures' files.",
        manifest=False,
        metavar="NAME",
        default_text="image, or the only column that can be one",
    )
    method: str = decisive(
        "natural",
        "Method that anonymizes the faces: a name that ppfr methods lists, or MODULE:CLASS of your "
        "own.",
        manifest=False,
    )
    method_options: dict[str, str] = decisive(
        {},
        "An option of the method (ppfr methods lists them). Repeatable.",
        manifest=False,
        flag="--method-option",
        metavar="KEY=VALUE",
    )
    identity: Literal["virtual", "original"] | None = decisive(
        None,
        "Identity mode. virtual: people who do not exist, one for everybody in the input: "
        "by --identity-column, by --groups, or as the photos seem to belong together. original: "
        "the people themselves, whom every recogniser can then find (stochastic-local).",
        manifest=False,
        default_text="virtual",
    )
    groups: str | None = owners_file(
        "File of groups, CSV or Parquet: which rows show the same person, as ppfr group writes it "
        "and a person may have corrected it. Instead of --identity-column. Of photographs (--cover "
        "virtual): which faces, as ppfr group --faces detect writes it."
    )
    variation: float | None = decisive(
        None,
        "How much photos of a virtual person differ. natural draws it, and nothing of the photo is "
        "kept; stochastic-local keeps so much of what the photos differ by, 0: nothing.",
        manifest=False,
        default_text="the method's own (natural: 1; stochastic-local: 0)",
        ge=0,
        le=1,
    )
    keep_look: str | None = decisive(
        None,
        "Parts of a photo's look that its picture has too, each in a few bins: pose, light "
        "(natural). What that tells of the photo: docs/natural.md.",
        manifest=False,
        default_text="none: all of it is drawn",
        metavar="PARTS",
    )
    look_epsilon: float | None = decisive(
        None,
        "Differential privacy for --keep-look: each bin goes through randomised response, and what "
        "is told of a photo's look costs this much (natural). It is of a photo, not of a person "
        "who has many.",
        manifest=False,
        default_text="none: bins are kept as they are",
        ge=1e-3,
        le=64,
    )
    discard_key: bool = option(
        False,
        "When all is done, remove the key that the run made for its release: nobody can say any "
        "more who is whom, or add to the release.",
    )
    size_anonymity: int = decisive(
        10,
        "How many of the people who do not exist share each number of pictures, at least, so "
        "that nobody is found by the number of their photos. 1: numbers are left as they are, "
        "which gives away who has a number that nobody else has.",
        ge=1,
        metavar="K",
    )
    size_rounding: Literal["add", "split", "drop"] = decisive(
        "add",
        "How numbers of pictures are made alike. add: more pictures of a person are drawn, which "
        "takes no photo; split: anyone who has more than the K with most is several people first; "
        "drop: rows are left out, at random.",
    )
    secrets: dict[str, str] = option(
        {},
        "File of a secret that the method needs, by its role (ppfr methods names the roles). "
        "Instead of a file, the environment variable PPFR_SECRET_ROLE may hold the secret. "
        "Repeatable.",
        private=True,
        flag="--secret-file",
        metavar="ROLE=FILE",
    )
    fr: tuple[str, ...] = decisive(
        (),
        "A face recognition model to measure with, ONNX or TorchScript. Repeatable.",
        private=True,
        metavar="NAME=PATH",
    )
    keep_columns: tuple[str, ...] = decisive(
        (),
        "A column of the input to copy as it is. Repeatable. No other column is copied.",
        flag="--keep-column",
        metavar="NAME",
    )
    coarsen: tuple[str, ...] = decisive(
        (),
        "Make a kept column coarser, so that it singles out fewer people: NAME:bins=WIDTH for "
        "numbers, NAME:first=CHARACTERS for texts, NAME:only=VALUE|VALUE, NAME:by=year|quarter|"
        "month|day for times. Repeatable. ppfr report says how many people they single out.",
        flag="--coarsen",
        metavar="NAME:HOW",
    )
    identity_column: str | None = decisive(
        None,
        "Column that says who is in the picture; only keyed pseudonyms of it are published. For "
        "trees of picture files: folder.",
        manifest=False,
        metavar="NAME",
    )
    identity_from: str | None = decisive(
        None,
        "Where a picture's path says who is in it: 1 is the name of its folder, 2 of the folder "
        "above, or a pattern of paths below the input with {identity}, such as "
        "'{identity}/*/*.jpg' or '{identity}_*'.",
        private=True,
        metavar="N|PATTERN",
    )
    labels: str | None = owners_file(
        "Table that says of picture files what is in them: CSV, TSV or JSON lines with a column "
        "file_name (or path), of paths below the input; its other columns can be named as "
        "columns. metadata.csv, .jsonl and .parquet beside the pictures are read without this.",
        shapes=True,
    )
    strict: bool = option(
        False, "Refuse an input that holds anything that is not read, instead of saying so."
    )
    identity_key_file: str | None = owners_file(
        "File of the secret that pseudonyms and virtual people are made with (make one with: umask "
        "077; openssl rand -hex 32 > FILE). Releases under the same key match each other, under "
        "different keys they do not. Keep it apart from the output.",
        shapes=True,
        default_text="a key of the release's own, kept in evidence/",
    )
    accept_unsound: bool = option(
        False,
        "Use a method although what it claims does not hold. Its true figures are recorded beside "
        "the claim.",
    )
    privacy_budget: float | None = option(
        None,
        "Epsilon that a person may spend over all records and releases, with a method that "
        "promises differential privacy. A run that would overdraw is refused. Needs "
        "--identity-key-file.",
        manifest=True,
        gt=0,
        metavar="EPSILON",
    )
    privacy_account: str | None = owners_file(
        "Folder or fsspec URL of the account of what people have spent, which several outputs "
        "share. Needs --identity-key-file.",
        default_text="an account of the output's own, kept in evidence/",
        metavar="URL",
    )
    output_form: Literal["files", "parquet"] | None = decisive(
        None,
        "Form of the release. parquet: shards of records. files: photographs that are published "
        "in-place, as a tree of picture files like the input's, and a list of them, SHA256SUMS.",
        default_text="files for photographs in-place of a folder of pictures, else parquet",
    )
    names: Literal["keep", "number"] = decisive(
        "keep",
        "What the files of a release are called. keep: folders and names stay, whatever they tell; "
        "number: 0001, 0002 and so on in one folder, in a random order.",
    )
    output_format: Literal["jpeg", "png", "webp", "same"] | None = decisive(
        None,
        "Format of the published pictures. same: JPEG, PNG and WebP stay what they are, anything "
        "else becomes PNG (photographs in-place).",
        default_text="same in a release of files, else jpeg",
    )
    quality: int = decisive(95, "Quality of published JPEG and WebP pictures.", ge=1, le=100)
    mark: bool = decisive(
        True,
        "Mark pictures with faces that a model drew as synthetic (IPTC's digital source type, XMP, "
        "the same bytes in every picture). --no-mark leaves it out.",
    )
    c2pa: str | None = owners_file(
        "Sign every marked picture: Content Credentials (C2PA) under this chain of certificates, "
        "PEM, the signer's first. They say that a model made the picture, and no time. Needs "
        "--c2pa-key."
    )
    c2pa_key: str | None = owners_file(
        "Private key of the first certificate of --c2pa (PEM, Ed25519 or a NIST curve)."
    )
    c2pa_training: Literal["allowed", "notAllowed"] | None = decisive(
        None,
        "What Content Credentials say of training machines with the pictures, and of mining them "
        "for data.",
        manifest=False,
        default_text="nothing is said",
    )
    invisible_mark: str | None = owners_file(
        "File of a key (make one with: umask 077; openssl rand -hex 32 > FILE): every picture "
        "bears a pattern in its pixels by which ppfr mark read tells, with the same key, that it "
        "is from this release, also after cropping, scaling and JPEG.",
        shapes=True,
    )
    unit_rows: int | None = option(
        None,
        "Rows of the largest unit of work: what is held in memory, and what a crash costs.",
        manifest=True,
        default_text="1000; 200 with --faces detect; fewer in a small input, for workers to share",
        ge=1,
        le=100_000,
    )
    batch_size: int = option(
        32, "Faces that the method and the models get at a time.", ge=1, le=4096
    )
    metrics: Level | None = decisive(
        None,
        "How much is measured on every record. basic leaves out disclosure and draw_similarity, "
        "which take most of the time; none measures nothing.",
        default_text="full; none with --cover blur, mosaic or solid, unless a policy, "
        "--max-disclosure or --fr asks for more",
    )
    draw_sample: int = option(
        16,
        "Measure what tells of the method, not of the record, on one row in so many: "
        "draw_similarity, which compares two publications of a face, on 256 of a run at least, and "
        "residual_faces of photographs on 64. 1: on all, as for a policy that bounds "
        "draw_similarity on every record.",
        manifest=True,
        ge=1,
    )
    limit: int | None = option(
        None, "Take only this many rows, from the first.", manifest=True, ge=1
    )
    seed: int | None = decisive(
        None,
        "Make the random draws reproducible. For tests ONLY: anyone who knows the seed can undo "
        "the method.",
        private=True,
    )
    max_disclosure: float | None = decisive(
        None,
        "Highest disclosure of a published record: one that discloses more is drawn again, and "
        "becomes a dead letter if no draw helps.",
        default_text="the method's own limit (stochastic-local: 0.60)",
        gt=0,
        le=1,
    )
    max_dead_letter_rate: float = option(
        0.01,
        "Share of the rows that may become dead letters before the exit code is 3.",
        manifest=True,
        ge=0,
        le=1,
    )
    accept_unreviewed: bool = option(
        False,
        "Let ppfr report pass photographs that a person should look at, and nobody has.",
        manifest=True,
    )
    policy: str | None = owners_file(
        "YAML file of thresholds (docs/policy.md). Records that miss theirs are drawn again, then "
        "held back; the release as a whole decides the verdict and the exit code.",
        shapes=True,
    )
    check_shards: Literal["listed", "all"] = option(
        "listed",
        "What a run that has nothing to do looks at. listed: if every shard and manifest (in "
        "object storage, of the evidence the first thousand) is listed with the size and times (or "
        "ETag) that it had when the last run ended, they are left as they are. all: read and hash "
        "every shard, and write and sign the manifests anew, as a run does that has something to "
        "do, or finds anything listed otherwise; even those that a store lists with the digest "
        "that was noted when it was written.",
    )
    overwrite: bool = option(
        False,
        "Remove what an earlier run left in the output and begin anew. The default, --resume, "
        "goes on with it.",
        flag="--overwrite/--resume",
    )
    retry_dead_letters: tuple[str, ...] = option(
        (),
        "Do the units again that hold dead letters of this reason code, such as method_failed, and "
        "try their rows anew. Repeatable.",
        flag="--retry-dead-letters",
        metavar="CODE",
    )
    incremental: bool = option(
        False,
        "Expect an input that has changed since the last run, and do only what is new or changed. "
        "Needs --identity-key-file.",
    )
    propagate_deletions: bool = option(
        False,
        "With --incremental: withdraw what was published of files that are no longer in the input.",
    )
    allow_deletions: str | None = option(
        None,
        "With --incremental: how many rows a run may take back, with their originals in the vault, "
        "because they are no longer in the input: a number, or a share (0.2, 20%). A run that "
        "would take back more is refused and changes nothing.",
        manifest=True,
        default_text="10% of the rows that are published, and 1000",
        metavar="N|SHARE",
    )
    single_writer: bool = option(
        False,
        "Accept a store without conditional puts: you make sure that no two runs write this output "
        "at the same time.",
    )
    mapping: str | None = owners_file(
        "Write record_id, source and row to this Parquet file, for the owner's safe: it undoes the "
        "pseudonyms."
    )
    signing_key: str | None = owners_file(
        "Private key (PEM, Ed25519 or a NIST curve) to sign the release with; ppfr verify "
        "--public-key, release/verify.py and model_signing verify check the signature."
    )
    vault: str | None = owners_file(
        "Keep the original of every published record there, encrypted (docs/vault.md); ppfr erase "
        "gives it back to anyone who has the key. Needs --vault-key.",
        metavar="URL",
    )
    vault_key: str | None = owners_file(
        "File of the master key of the vault (make one with: umask 077; openssl rand -hex 32 > "
        "FILE), or MODULE:NAME of a key service. Without it what is in the vault is lost."
    )
    photographs: PhotographOptions | None = Field(None)
    """None: the input is aligned faces."""
    detections_out: str | None = owners_file(
        "With --faces detect: write box, landmarks, score and treatment of every face to "
        "NAME.parquet and NAME.jsonl.",
        metavar="NAME",
    )
    review_out: str | None = owners_file(
        "With --faces detect: write a CSV of the photographs that a person should look at, worst "
        "first. It names sources."
    )
    verdicts: str | None = owners_file(
        "With --faces detect: the CSV of --review-out, its column verdict filled in with ok, drop, "
        "or cover (boxes as [[x0, y0, x1, y1], …]). The photographs concerned are done anew; a "
        "verdict of another picture than the one that is there is not heeded."
    )

    @property
    def names_people(self) -> bool:
        """Whether the owner says who is on which photo, so that pseudonyms are published."""
        grouped = self.groups is not None and self.photographs is None
        return self.identity_column is not None or grouped

    @property
    def rows_per_unit(self) -> int:
        """``unit_rows``, or its default."""
        return self.unit_rows or (1000 if self.photographs is None else 200)

    @property
    def least_units(self) -> int:
        """Units that a small input is cut into, unless ``unit_rows`` says how."""
        return 1 if self.unit_rows else 16

    @property
    def as_files(self) -> bool:
        """Whether the release holds files, and no shards."""
        return self.output_form == "files"

    def encoding(self, draws_faces: bool) -> Encoding:
        """How pictures are stored.

        Args:
            draws_faces: as the method says it.
        """
        in_place = self.photographs is not None and self.photographs.output_faces == "in-place"
        marked = self.mark and draws_faces
        source_type = SOURCE_TYPES[in_place] if marked else None
        chosen = self.output_format or "jpeg"
        return Encoding("jpeg" if chosen == "same" else chosen, self.quality, source_type)

    def recognizer_specs(self) -> list[RecognizerSpec]:
        return [RecognizerSpec.parse(text) for text in self.fr]
