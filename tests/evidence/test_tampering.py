"""A table of tamperings: each is rejected by `greenops evidence verify`, by the property that was broken.

The first half needs no skill; then come the ones by somebody who knows the format, repairs what can be repaired
without the keys, or has a key of his own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from typer.testing import CliRunner

from greenops_pipelines.cli import app
from greenops_pipelines.evidence import bundle as form
from greenops_pipelines.evidence import canonical, merkle, signing, statement
from greenops_pipelines.evidence.bundle import Bundle
from greenops_pipelines.evidence.checkpoint import LogKey, LogVerifier, Proof, read_proof
from greenops_pipelines.evidence.gpg import Gpg
from greenops_pipelines.evidence.keys import FileSigner, Keys
from greenops_pipelines.evidence.report import Trust
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.evidence.verify import verify
from tests.evidence.conftest import Specimens, unpacked

Parts = dict[str, bytes]
Change = Callable[[Parts, Specimens], Any]
CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def flipped(data: bytes, at: int = -3) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def edit(part: str, change: Callable[[Any], Any]) -> Change:
    """Changes a JSON part, and writes it as canonically as the original."""

    def apply(parts: Parts, _: Specimens) -> None:
        document = json.loads(parts[part])
        parts[part] = canonical.dumps(change(document) or document)

    return apply


def text(part: str, old: str, new: str) -> Change:
    def apply(parts: Parts, _: Specimens) -> None:
        assert old.encode() in parts[part]
        parts[part] = parts[part].replace(old.encode(), new.encode(), 1)

    return apply


def flip(part: str, at: int = -3) -> Change:
    return lambda parts, _: parts.update({part: flipped(parts[part], at)})


def put(part: str, data: bytes) -> Change:
    return lambda parts, _: parts.update({part: data})


def drop(*names: str) -> Change:
    return lambda parts, _: [parts.pop(name) for name in names]


def take(source: str, *names: str) -> Change:
    """Parts of another specimen in the place of ours."""
    return lambda parts, all_of: parts.update({name: getattr(all_of, source).parts[name] for name in names})


def rename(parts: Parts, _: Specimens) -> None:
    parts["files/scoreboard.json"] = parts.pop("files/scorecard.json")


def swap_two_files(parts: Parts, _: Specimens) -> None:
    one, two = "files/scorecard.json", "files/drill/steps.log"
    parts[one], parts[two] = parts[two], parts[one]


def lie_in_the_manifest(parts: Parts, _: Specimens) -> None:
    """A file changed, and the manifest with it."""
    parts["files/scorecard.json"] = b'{"criteria": 40}\n'
    files = {name: data for name, data in parts.items() if name.startswith((form.FILES, "keys/"))}
    identifier = json.loads(parts[form.MANIFEST])["bundle"]
    parts[form.MANIFEST] = statement.manifest(identifier, files).encode()


def lie_in_the_statement_too(parts: Parts, specimens: Specimens) -> None:
    """The same, and the statement's subjects with it: now only the signatures stand in the way."""
    lie_in_the_manifest(parts, specimens)
    described = statement.Manifest.read(parts[form.MANIFEST])
    said = statement.Statement.read(parts[form.STATEMENT])
    parts[form.STATEMENT] = statement.statement(parts[form.MANIFEST], described, said.predicate).encode()


def sign_anew(parts: Parts, signer: FileSigner, **changes: Any) -> None:
    """A forger with a key of his own makes everything that a key can make."""
    parts[form.PUBLIC_KEY] = signer.public.pem
    lie: Parts = {name: data for name, data in parts.items() if name.startswith((form.FILES, "keys/"))}
    said = statement.Statement.read(parts[form.STATEMENT])
    manifest = statement.manifest(said.predicate.bundle, lie)
    signs = said.predicate.signing.model_copy(update={"keyid": signer.public.keyid})
    predicate = said.predicate.model_copy(update={"signing": signs} | changes)
    parts[form.MANIFEST] = manifest.encode()
    parts[form.STATEMENT] = statement.statement(parts[form.MANIFEST], manifest, predicate).encode()
    parts[form.SIGNATURE] = signer.sign(parts[form.STATEMENT])
    parts[form.DSSE] = signing.envelope(signer, parts[form.STATEMENT])
    parts[form.SIGSTORE] = signing.sigstore_bundle(signer.public, parts[form.DSSE])


def log_anew(parts: Parts, key: LogKey, at: str = "2026-05-01T12:00:00Z", size: int = 1) -> None:
    """The forger keeps a log of his own, too."""
    sums = statement.digests({name: data for name, data in parts.items() if name not in (form.ENTRY, form.PROOF)})
    bundle = json.loads(parts[form.MANIFEST])["bundle"]
    parts[form.ENTRY] = statement.Entry(type=statement.ENTRY_TYPE, bundle=bundle, logged_at=at, parts=sums).encode()
    root = merkle.leaf_hash(parts[form.ENTRY])
    parts[form.PROOF] = Proof(0, (), key.sign(size, root)).encode()


FORGER = FileSigner(ec.generate_private_key(ec.SECP256R1()))
FORGERS_LOG = LogKey("greenops-pipelines.example/log/forged", Ed25519PrivateKey.generate())


def forge(parts: Parts, _: Specimens) -> None:
    sign_anew(parts, FORGER)
    log_anew(parts, FORGERS_LOG)


def strip_and_restate(parts: Parts, _: Specimens) -> None:
    """GPG signature and its mention removed: but the mention was signed."""
    del parts[form.GPG_SIGNATURE], parts[form.GPG_KEY]
    said = json.loads(parts[form.STATEMENT])
    said["predicate"]["signing"]["gpg"] = {"absent": "no gpg", "fingerprint": None}
    parts[form.STATEMENT] = canonical.dumps(said)


def only_the_signature_by_the_forger(parts: Parts, _: Specimens) -> None:
    parts[form.SIGNATURE] = FORGER.sign(parts[form.STATEMENT])


def other_half_of_the_curve(parts: Parts, _: Specimens) -> None:
    """(r, n-s) is as valid as (r, s): the same statement with a signature that nobody made."""
    r, s = decode_dss_signature(parts[form.SIGNATURE])
    parts[form.SIGNATURE] = encode_dss_signature(r, CURVE_ORDER - s)


def envelope_by_the_forger(parts: Parts, _: Specimens) -> None:
    document = json.loads(signing.envelope(FORGER, parts[form.STATEMENT]))
    document["signatures"][0]["keyid"] = json.loads(parts[form.DSSE])["signatures"][0]["keyid"]
    parts[form.DSSE] = canonical.dumps(document)


def two_signatures(document: Any) -> None:
    document["signatures"].append(document["signatures"][0])


def relogged(parts: Parts, _: Specimens) -> None:
    """A changed part, and the log entry with it: the entry is then not in the log."""
    parts[form.GPG_SIGNATURE] = parts[form.GPG_SIGNATURE].replace(
        b"SIGNATURE-----\n", b"SIGNATURE-----\nComment: hello\n", 1
    )
    sums = statement.digests({name: data for name, data in parts.items() if name not in (form.ENTRY, form.PROOF)})
    document = json.loads(parts[form.ENTRY]) | {"parts": sums}
    parts[form.ENTRY] = canonical.dumps(document)


def proof(change: Callable[[Proof], Proof]) -> Change:
    return lambda parts, _: parts.update({form.PROOF: change(read_proof(parts[form.PROOF])).encode()})


def checkpoint_of(change: Callable[[str], str]) -> Change:
    return proof(lambda found: replace(found, checkpoint=change(found.checkpoint)))


def signed_by_another_log(note: str) -> str:
    origin, size, root = note.split("\n")[:3]
    return LogKey(origin, FORGERS_LOG.private_key).sign(int(size), base64.b64decode(root))


def lines(number: int, new: Callable[[str], str]) -> Callable[[str], str]:
    def change(note: str) -> str:
        found = note.split("\n")
        found[number] = new(found[number])
        return "\n".join(found)

    return change


def set_verdict(document: Any) -> None:
    document["predicate"]["verdict"] = "failed"


def set_figure(document: Any) -> None:
    document["predicate"]["figures"]["RPO seconds"] = 0.03


TABLE: dict[str, tuple[str, Change]] = {
    # files
    "a byte of a file": ("files", flip("files/scorecard.json")),
    "a byte more in a file": ("files", lambda p, _: p.update({"files/scorecard.json": p["files/scorecard.json"] + b" "})),
    "a file emptied": ("files", put("files/scorecard.json", b"")),
    "a file added": ("files", put("files/extra.json", b"{}")),
    "a file removed": ("files", drop("files/scorecard.json")),
    "a file renamed": ("files", rename),
    "a file in another letter case": ("files", lambda p, _: p.update({"files/SCORECARD.json": p.pop("files/scorecard.json")})),
    "two files swapped": ("files", swap_two_files),
    "the signer's key swapped": ("files", put(form.PUBLIC_KEY, FORGER.public.pem)),
    "the log's key swapped": ("files", put(form.LOG_KEY, FORGERS_LOG.verifier.vkey.encode())),
    "the GPG key of another home": ("files", take("foreign", form.GPG_KEY)),
    "the certificates of another authority": ("files", take("foreign", form.TSA_ROOTS)),
    # manifest
    "a byte of the manifest": ("manifest", flip(form.MANIFEST)),
    "the manifest with a key twice": ("manifest", text(form.MANIFEST, '{"bundle"', '{"bundle":"x","bundle"')),
    "the manifest with a blank": ("manifest", text(form.MANIFEST, ":", ": ")),
    "the manifest with NaN": ("manifest", text(form.MANIFEST, '"size":17', '"size":NaN')),
    "the manifest with a member more": ("manifest", edit(form.MANIFEST, lambda d: d | {"note": "x"})),
    "the manifest unsorted": ("manifest", edit(form.MANIFEST, lambda d: d | {"files": d["files"][::-1]})),
    "the manifest with a file twice": ("manifest", edit(form.MANIFEST, lambda d: d | {"files": d["files"] + d["files"][-1:]})),
    "the manifest nested too deeply": ("manifest", put(form.MANIFEST, b"[" * 100_000)),
    "the manifest as no JSON": ("manifest", put(form.MANIFEST, b"\xff\xfe")),
    "the manifest with a byte-order mark": ("manifest", lambda p, _: p.update({form.MANIFEST: b"\xef\xbb\xbf" + p[form.MANIFEST]})),
    "the manifest of another bundle": ("files", take("foreign", form.MANIFEST)),
    "a manifest that lies about a size": ("files", edit(form.MANIFEST, lambda d: d["files"][0].update(size=1))),
    "a manifest that leaves a file out": ("files", edit(form.MANIFEST, lambda d: d["files"].pop() and None)),
    "a manifest that fits the changed file": ("statement", lie_in_the_manifest),
    # statement
    "another verdict": ("signature", edit(form.STATEMENT, set_verdict)),
    "another figure": ("signature", edit(form.STATEMENT, set_figure)),
    "the statement with a key twice": ("statement", text(form.STATEMENT, '{"_type"', '{"_type":"x","_type"')),
    "the statement with a line break": ("statement", lambda p, _: p.update({form.STATEMENT: p[form.STATEMENT] + b"\n"})),
    "another predicate type": ("statement", edit(form.STATEMENT, lambda d: d | {"predicateType": "https://slsa.dev/provenance/v1"})),
    "a subject removed": ("statement", edit(form.STATEMENT, lambda d: d["subject"].pop() and None)),
    "a verdict that is none": ("statement", edit(form.STATEMENT, lambda d: d["predicate"].update(verdict="excellent"))),
    "the statement of another bundle": ("statement", take("two", form.STATEMENT)),
    "everything signed from another bundle": ("identity", lambda p, s: (p.clear(), p.update(s.two.parts))),
    "a statement that fits the changed file": ("signature", lie_in_the_statement_too),
    # keys and signatures
    "a bundle by another key": ("key", lambda p, _: sign_anew(p, FORGER)),
    "a bundle by another key and in another log": ("key", forge),
    "a byte of the signature": ("signature", flip(form.SIGNATURE)),
    "no signature": ("signature", put(form.SIGNATURE, b"")),
    "the signature of another bundle": ("signature", take("two", form.SIGNATURE)),
    "a signature by another key": ("signature", only_the_signature_by_the_forger),
    "the other half of the curve": ("timestamp", other_half_of_the_curve),
    "the envelope of another bundle": ("dsse", take("two", form.DSSE)),
    "an envelope by another key": ("dsse", envelope_by_the_forger),
    "an envelope with two signatures": ("dsse", edit(form.DSSE, two_signatures)),
    "an envelope without signatures": ("dsse", edit(form.DSSE, lambda d: d | {"signatures": []})),
    "an envelope of another type": ("dsse", edit(form.DSSE, lambda d: d | {"payloadType": "text/plain"})),
    "an envelope with a member more": ("dsse", edit(form.DSSE, lambda d: d | {"note": 1})),
    "an envelope with a key twice": ("dsse", text(form.DSSE, '{"payload"', '{"payload":"","payload"')),
    "the sigstore bundle of another bundle": ("sigstore bundle", take("two", form.SIGSTORE)),
    "the sigstore bundle in version 0.2": ("sigstore bundle", text(form.SIGSTORE, "v0.3", "v0.2")),
    "the sigstore bundle with another hint": ("sigstore bundle", text(form.SIGSTORE, '"hint":"', '"hint":"AAAA')),
    "the sigstore bundle with an empty log": ("sigstore bundle", edit(form.SIGSTORE, lambda d: d["verificationMaterial"].update(tlogEntries=[]))),
    # GPG
    "the GPG signature removed": ("gpg", drop(form.GPG_SIGNATURE)),
    "the GPG signature of another bundle": ("gpg", take("two", form.GPG_SIGNATURE)),
    "the GPG signature by another home": ("gpg", take("foreign", form.GPG_SIGNATURE)),
    "the GPG signature as garbage": ("gpg", put(form.GPG_SIGNATURE, b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n")),
    "the GPG signature with a comment": ("log entry", text(form.GPG_SIGNATURE, "SIGNATURE-----\n", "SIGNATURE-----\nComment: hello\n")),
    "GPG stripped, and restated": ("files", strip_and_restate),
    # time stamp
    "the time stamp removed": ("timestamp", drop(form.TIMESTAMP)),
    "the time stamp of another bundle": ("timestamp", take("two", form.TIMESTAMP)),
    "the time stamp of another authority": ("timestamp", take("foreign", form.TIMESTAMP)),
    "the time stamp as garbage": ("timestamp", put(form.TIMESTAMP, b"0\x03\x02\x01\x00")),
    "a byte of the time stamp": ("timestamp", flip(form.TIMESTAMP)),
    # log
    "the log entry of another bundle": ("log entry", take("two", form.ENTRY)),
    "a log entry of another day": ("log inclusion", edit(form.ENTRY, lambda d: d | {"loggedAt": "2027-01-01T00:00:00Z"})),
    "a log entry with a part less": ("log entry", edit(form.ENTRY, lambda d: d["parts"].pop("statement.json.asc") and None)),
    "a log entry that fits a changed part": ("log inclusion", relogged),
    "a log of the forger's": ("checkpoint", lambda p, _: log_anew(p, FORGERS_LOG)),
    "the proof of another bundle": ("log inclusion", take("two", form.PROOF)),
    "the proof of another log": ("checkpoint", take("foreign", form.PROOF)),
    "a proof with another index": ("log inclusion", proof(lambda f: replace(f, index=f.index + 1))),
    "a proof with a hash more": ("log inclusion", proof(lambda f: replace(f, path=(*f.path, bytes(32))))),
    "a proof with extra data": ("checkpoint", text(form.PROOF, "index", "extra AAAA\nindex")),
    "a proof with a number in another spelling": ("checkpoint", text(form.PROOF, "index ", "index 0")),
    "a checkpoint of another size": ("checkpoint", checkpoint_of(lines(1, lambda size: f"{int(size) + 1}"))),
    "a checkpoint with another root": ("checkpoint", checkpoint_of(lines(2, lambda _: base64.b64encode(bytes(32)).decode()))),
    "a checkpoint of another name": ("checkpoint", checkpoint_of(lines(0, lambda origin: origin + "x"))),
    "a checkpoint signed by another log": ("checkpoint", checkpoint_of(signed_by_another_log)),
    "a checkpoint with an extension": ("checkpoint", checkpoint_of(lines(2, lambda root: root + "\nextension"))),
    "a checkpoint with two signatures": ("checkpoint", checkpoint_of(lambda note: note + note.split("\n\n")[1])),
    "a checkpoint without a signature": ("checkpoint", checkpoint_of(lambda note: note.split("\n\n")[0])),
    # parts
    "a part that does not belong": ("layout", put("README", b"hello")),
    "a hidden file": ("layout", put("files/.hidden", b"")),
    "a file that climbs out": ("layout", put("files/../../escape", b"")),
    "an absolute name": ("layout", put("/etc/passwd", b"")),
    "a name with a backslash": ("layout", put("files/a\\b", b"")),
    **{f"{name} removed": ("layout", drop(name)) for name in sorted(form.ALWAYS)},
}  # fmt: skip


def tar(parts: Parts, identifier: str) -> bytes:
    return form.pack(Bundle(identifier, parts))


def examined(path: Path, specimens: Specimens) -> tuple[int, list[str], str]:
    """Exit code, failed properties and the line on stderr of `greenops evidence verify`."""
    command = [
        "evidence",
        "verify",
        str(path),
        "--key",
        str(specimens.public_key),
        "--checkpoints",
        str(specimens.published),
    ]
    found = CliRunner().invoke(app, [*command, "--json"])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    properties = json.loads(found.stdout)["properties"]
    return found.exit_code, [p["property"] for p in properties if p["state"] == "failed"], found.stderr


def test_the_specimen_itself_is_good_as_tar_and_as_folder(specimens: Specimens, tmp_path: Path) -> None:
    path = tmp_path / "any name.tar"
    path.write_bytes(tar(dict(specimens.one.parts), specimens.one.id))
    assert examined(path, specimens) == (0, [], "")
    assert examined(unpacked(specimens.one, tmp_path), specimens) == (0, [], "")


def test_there_are_at_least_forty_tamperings() -> None:
    assert len(TABLE) >= 40


@pytest.mark.parametrize("name", TABLE)
def test_a_tampering_is_rejected_by_the_property_it_breaks(name: str, specimens: Specimens, tmp_path: Path) -> None:
    expected, change = TABLE[name]
    parts = dict(specimens.one.parts)
    change(parts, specimens)
    assert parts != specimens.one.parts
    path = tmp_path / "bundle.tar"
    path.write_bytes(tar(parts, specimens.one.id))
    code, failed, line = examined(path, specimens)
    assert code == 1
    assert failed[0] == expected
    assert f"not verified: {expected}: " in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("part", sorted(form.ALWAYS | form.OPTIONAL))
def test_a_changed_bit_in_any_part_is_rejected_wherever_it_is(part: str, specimens: Specimens) -> None:
    trust = specimens.evidence.trust()
    data = specimens.one.parts[part]
    for at in range(0, len(data), max(1, len(data) // 25)):
        parts = dict(specimens.one.parts) | {part: flipped(data, at)}
        assert not verify(tar(parts, specimens.one.id), trust).ok, f"{part} at {at}"


def member(name: str, data: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o444, 0
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def raw_tar(bundle: Bundle, *extra: tuple[tarfile.TarInfo, bytes], **attributes: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(bundle.parts.items()):
            info, content = member(f"{bundle.id}/{name}", data, **attributes)
            archive.addfile(info, io.BytesIO(content))
        for info, content in extra:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


TARS: dict[str, tuple[str, Callable[[Bundle], bytes]]] = {
    "a symbolic link": ("symbolic link", lambda b: raw_tar(b, member(f"{b.id}/files/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"))),
    "a hard link": ("hard link", lambda b: raw_tar(b, member(f"{b.id}/files/link", type=tarfile.LNKTYPE, linkname=f"{b.id}/manifest.json"))),
    "a character device": ("character device", lambda b: raw_tar(b, member(f"{b.id}/files/null", type=tarfile.CHRTYPE))),
    "a block device": ("block device", lambda b: raw_tar(b, member(f"{b.id}/files/disk", type=tarfile.BLKTYPE))),
    "a named pipe": ("named pipe", lambda b: raw_tar(b, member(f"{b.id}/files/pipe", type=tarfile.FIFOTYPE))),
    "a folder entry": ("folder entry", lambda b: raw_tar(b, member(f"{b.id}/files/empty", type=tarfile.DIRTYPE))),
    "a name that climbs out": ("does not belong", lambda b: raw_tar(b, member(f"{b.id}/../escape"))),
    "an absolute name": ("top folders", lambda b: raw_tar(b, member("/etc/passwd"))),
    "a second bundle": ("top folders", lambda b: raw_tar(b, member("20260101T000000Z-0000000000000000/other.json"))),
    "a name twice": ("twice", lambda b: raw_tar(b, member(f"{b.id}/manifest.json", b"{}"))),
    "another owner": ("other bytes", lambda b: raw_tar(b, uid=1000)),
    "another mode": ("other bytes", lambda b: raw_tar(b, mode=0o644)),
    "another time": ("other bytes", lambda b: raw_tar(b, mtime=1)),
    "bytes after the end": ("other bytes", lambda b: form.pack(b) + b"x"),
    "a block after the end": ("other bytes", lambda b: form.pack(b) + bytes(512)),
    "bytes in the padding": ("other bytes", lambda b: padded(form.pack(b))),
    "half of it": ("ends in the middle", lambda b: form.pack(b)[: len(form.pack(b)) // 2 + 100]),
    "nothing": ("top folders", lambda _: b""),
    "no tar": ("no ustar header", lambda _: b"PK\x03\x04" + bytes(600)),
    "another top folder": ("top folder", lambda b: form.pack(Bundle("evidence", b.parts))),
    "a GNU tar": ("no ustar header", lambda b: raw_tar(b).replace(b"ustar\x0000", b"ustar  \x00")),
}  # fmt: skip


def padded(data: bytes) -> bytes:
    end = data.index(b"\0" * 40, 512)
    return data[:end] + b"hidden" + data[end + 6 :]


@pytest.mark.parametrize("name", TARS)
def test_a_tar_that_is_not_as_it_was_filed_is_rejected_by_its_layout(
    name: str, specimens: Specimens, tmp_path: Path
) -> None:
    said, make = TARS[name]
    path = tmp_path / "bundle.tar"
    path.write_bytes(make(specimens.one))
    code, failed, line = examined(path, specimens)
    assert (code, failed) == (1, ["layout"])
    assert said in line


def link(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere")


def linked_folder(folder: Path) -> None:
    (folder / "files").rename(folder.parent / "elsewhere")
    (folder / "files").symlink_to(folder.parent / "elsewhere")


def pipe(folder: Path) -> None:
    (folder / "files/scorecard.json").unlink()
    os.mkfifo(folder / "files/scorecard.json")


FOLDERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a link in the place of a part": ("symbolic link", link),
    "a link in the place of a folder": ("symbolic link", linked_folder),
    "a pipe in the place of a file": ("device, pipe or socket", pipe),
    "an empty folder": ("empty folder", lambda folder: (folder / "files/new").mkdir()),
    "a file beside the parts": ("does not belong", lambda folder: (folder / "notes.txt").write_text("x")),
    "the folder renamed": ("rename it back", lambda folder: folder.rename(folder.parent / "evidence")),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_something_else_in_it_is_rejected_by_its_layout(
    name: str, specimens: Specimens, tmp_path: Path
) -> None:
    said, change = FOLDERS[name]
    folder = unpacked(specimens.one, tmp_path / "folder")
    change(folder)
    code, failed, line = examined(
        next(path for path in (tmp_path / "folder").iterdir() if (path / "keys").is_dir()), specimens
    )
    assert (code, failed) == (1, ["layout"])
    assert said in line


def test_a_folder_renamed_to_another_bundle_is_a_replay(specimens: Specimens, tmp_path: Path) -> None:
    folder = unpacked(specimens.one, tmp_path)
    folder.rename(tmp_path / specimens.two.id)
    assert examined(tmp_path / specimens.two.id, specimens)[1][0] == "identity"


def test_without_a_key_to_trust_nothing_is_verified(specimens: Specimens) -> None:
    report = verify(form.pack(specimens.one), Trust(()))
    assert not report.ok
    assert report.summary == "key: no key to trust was given; anyone could have made this bundle"
    forged = dict(specimens.one.parts)
    forge(forged, specimens)
    assert not verify(tar(forged, specimens.one.id), Trust(())).ok


def test_the_verifiers_own_authority_is_insisted_on(specimens: Specimens, other_authority: Any) -> None:
    trust = replace(specimens.evidence.trust(), tsa_roots=other_authority.roots.read_bytes())
    assert verify(form.pack(specimens.one), trust).failed == ["timestamp"]


def test_a_signature_that_was_said_not_to_exist_is_no_gift(specimens: Specimens) -> None:
    parts = dict(specimens.plain.parts)
    parts[form.GPG_SIGNATURE] = specimens.one.parts[form.GPG_SIGNATURE]
    assert verify(tar(parts, specimens.plain.id), specimens.evidence.trust()).failed[0] == "gpg"
    parts = dict(specimens.plain.parts)
    parts[form.TIMESTAMP] = specimens.one.parts[form.TIMESTAMP]
    assert "timestamp" in verify(tar(parts, specimens.plain.id), specimens.evidence.trust()).failed


def test_a_bundle_from_a_fork_of_the_log_is_rejected_where_the_second_place_is_asked(specimens: Specimens) -> None:
    """The signer himself, with all his keys, shows one auditor another log than he published."""
    parts = dict(specimens.plain.parts)
    key = specimens.evidence.keys.log_key()
    size = int(read_proof(parts[form.PROOF]).checkpoint.split("\n")[1])
    entry = json.loads(parts[form.ENTRY])
    log_anew(parts, key, entry["loggedAt"])
    bundle = tar(parts, specimens.plain.id)
    assert verify(bundle, specimens.evidence.trust()).ok
    against = specimens.evidence.trust(checkpoints=specimens.published)
    report = verify(bundle, against)
    assert report.failed == ["checkpoint published"]
    assert "the log is forked" in report.summary
    assert size > 1


@pytest.mark.parametrize(
    ("signed", "logged", "now", "said"),
    [
        ("2026-05-01T12:05:00Z", "2026-05-01T12:00:00Z", "2026-06-01", "signed 2026-05-01T12:05:00Z, which is after logged"),
        ("2026-05-01T12:00:00Z", "2026-05-01T12:00:00Z", "2026-04-01", "logged 2026-05-01T12:00:00Z, which is after this host"),
        ("2026-05-01T12:00:30Z", "2026-05-01T12:00:00Z", "2026-06-01", ""),
    ],
)  # fmt: skip
def test_a_clock_that_was_set_back_shows(signed: str, logged: str, now: str, said: str, specimens: Specimens) -> None:
    parts = dict(specimens.plain.parts)
    signer = specimens.evidence.keys.signer()
    assert isinstance(signer, FileSigner)
    sign_anew(parts, signer, created_at=signed)
    log_anew(parts, specimens.evidence.keys.log_key(), logged)
    report = verify(
        tar(parts, specimens.plain.id), Trust((signer.public,)), now=datetime.fromisoformat(now).replace(tzinfo=UTC)
    )
    assert report.failed == (["clock"] if said else [])
    assert said in report.summary


def resigned(parts: Parts, specimens: Specimens) -> list[str]:
    """What is said of parts that the signer himself, with his right key, made inconsistent."""
    signer = specimens.evidence.keys.signer()
    assert isinstance(signer, FileSigner)
    sign_anew(parts, signer)
    return verify(tar(parts, specimens.plain.id), specimens.evidence.trust()).failed


def test_the_signers_own_contradictions_are_no_excuse(specimens: Specimens, tmp_path: Path) -> None:
    parts = dict(specimens.plain.parts) | {form.LOG_KEY: FORGERS_LOG.verifier.vkey.encode()}
    assert resigned(parts, specimens)[:2] == ["log entry", "checkpoint"]
    stranger = Gpg(Keys(tmp_path / "keys"))
    parts = dict(specimens.one.parts) | {form.GPG_KEY: stranger.public}
    signer = specimens.evidence.keys.signer()
    assert isinstance(signer, FileSigner)
    sign_anew(parts, signer)
    parts[form.GPG_SIGNATURE] = stranger.sign(parts[form.STATEMENT])
    report = verify(tar(parts, specimens.one.id), specimens.evidence.trust())
    assert report.summary.startswith(f"gpg: it is by the key {stranger.fingerprint}, stated is ")


def test_a_checkpoint_of_another_log_is_called_that(specimens: Specimens) -> None:
    parts = dict(specimens.one.parts) | {form.PROOF: specimens.foreign.parts[form.PROOF]}
    report = verify(tar(parts, specimens.one.id), specimens.evidence.trust())
    assert report.summary.startswith("checkpoint: a checkpoint of another log: found ")


@pytest.fixture(scope="module")
def fuzzed(specimens: Specimens) -> tuple[bytes, Bundle, PublicKey]:
    [key] = specimens.evidence.trust().keys
    return form.pack(specimens.plain), specimens.plain, key


def mutated(data: bytes, draw: st.DataObject) -> bytes:
    """One to three changes: bits, bytes, pieces cut out, doubled, moved, put in."""
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, max(len(changed) - 1, 0)))
        length = draw.draw(st.integers(1, 64))
        match draw.draw(st.sampled_from(("flip", "set", "cut", "double", "insert", "truncate"))):
            case "flip" if changed:
                changed[at] ^= 1 << draw.draw(st.integers(0, 7))
            case "set" if changed:
                changed[at] = draw.draw(st.sampled_from((0, 9, 10, 13, 32, 34, 47, 48, 61, 92, 127, 255)))
            case "cut":
                del changed[at : at + length]
            case "double":
                changed[at:at] = changed[at : at + length]
            case "insert":
                changed[at:at] = draw.draw(st.binary(max_size=8))
            case "truncate":
                del changed[at:]
    return bytes(changed)


FUZZ = budget(
    max_examples=int(os.environ.get("GREENOPS_FUZZ_EXAMPLES", "2500")),
    derandomize=True,
    deadline=None,
    phases=(Phase.generate,),
    database=None,
    suppress_health_check=list(HealthCheck),
)


@FUZZ
@given(draw=st.data())
def test_fuzz_no_changed_tar_is_accepted(fuzzed: tuple[bytes, Bundle, PublicKey], draw: st.DataObject) -> None:
    whole, _, key = fuzzed
    changed = mutated(whole, draw)
    assert changed == whole or not verify(changed, Trust((key,))).ok


@FUZZ
@given(draw=st.data())
def test_fuzz_no_changed_part_is_accepted(fuzzed: tuple[bytes, Bundle, PublicKey], draw: st.DataObject) -> None:
    """As above, but in a tar that is well-formed, so that the change reaches the deeper checks."""
    _, bundle, key = fuzzed
    name = draw.draw(st.sampled_from(sorted(bundle.parts)))
    parts = dict(bundle.parts) | {name: mutated(bundle.parts[name], draw)}
    assert parts == bundle.parts or not verify(tar(parts, bundle.id), Trust((key,))).ok


def test_the_log_key_of_a_note_is_recognised_by_its_published_example() -> None:
    """From the documentation of Go's golang.org/x/mod/sumdb/note."""
    verifier = LogVerifier.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert verifier.origin == "PeterNeumann"
    assert verifier.key_id == bytes.fromhex("c74f20a3")
    with pytest.raises(ValueError, match="identifier does not belong"):
        LogVerifier.parse("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert hashlib.sha256(b"").digest() == merkle.EMPTY_ROOT
