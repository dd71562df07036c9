"""Small archives of the shapes that pip and apt download."""

import io
import tarfile
import zipfile

RATINGS = (
    "1\t2.4\tA fine film.\r\n2\t-3.2\tDull, and far too long.\r\n"
    "3\t0.0\tA film.\r\n4\t-0.8\ta fine film.\r\n"
)
NOUNS = """\
  1 This software and database is being provided to you
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived; "an entity"
00001930 05 n 01 dog 0 001 @ 00001740 n 0000 | a domestic animal; of many breeds
00002137 28 n 01 noon 0 001 @ 00001740 n 0000 | the middle of the day
"""
SENTENCES = """\
# text = Gösterilmeyen sorular.
1	Göster	göster	NOUN	NN	_	2	ig	_	SpaceAfter=No
2	il	_	VERB	VB	_	3	ig	_	SpaceAfter=No
3	meyen	_	ADJ	VJ	_	4	rcmod	_	_
4	sorular	soru	NOUN	NN	_	0	root	_	SpaceAfter=No
5	.	.	PUNCT	.	_	4	p	_	_

# text = Bu ne?
1	Bu	bu	PRON	PRP	_	2	nsubj	_	_
2	ne	ne	PRON	WP	_	0	root	_	SpaceAfter=No
3	?	?	PUNCT	.	_	2	p	_	_
"""


def tar(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def deb(files):
    """An ``ar`` archive; members of odd length are padded."""
    out = b"!<arch>\n"
    for name, content in files.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        out += header.encode() + content + b"\n" * (len(content) % 2)
    return out


def write_all(folder):
    table = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    inner = tar({table: RATINGS.encode()})
    inside = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    (folder / "vaderSentiment-3.3.2.tar.gz").write_bytes(tar({inside: inner}))
    data = tar({"./usr/share/wordnet/data.noun": NOUNS.encode()}, "w:xz")
    package = {"debian-binary": b"2.0", "control.tar.xz": b"?", "data.tar.xz": data}
    (folder / "wordnet-base_1%3a3.0-37_all.deb").write_bytes(deb(package))
    wheel = folder / "turkish_treebanks-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        first, second = SENTENCES.split("\n\n")
        archive.writestr("data/web.conllu", first + "\n\n")
        archive.writestr("data/wiki.conllu", second + "\n")
