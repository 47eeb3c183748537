"""``hvq-edge bundle``: check a bundle, carry it, bring it into use, and go back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import messages, print_json, results
from hvq_edge.cli.interruption import tidy_at_sigterm
from hvq_edge.cli.options import BundleArgument, BundleOption, JsonOption
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_BUNDLE

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

SignedOption = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="PUBKEY",
        help="Insist that the holder of a key in this file (PEM, one or more) signed it.",
        show_default=False,
    ),
]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE.hvq", help="What hvq-edge bundle pack wrote.")
]


@group.callback()
def _bundle(context: typer.Context) -> None:
    """Check, pack and install a bundle, and go back."""
    context.with_resource(tidy_at_sigterm())


@group.command("check")
def check(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    trusted: SignedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every byte of a bundle with its manifest.

    Its signature is checked if asked. Ends with exit code 1 when a file was changed, added or
    removed; each is named.
    """
    from hvq_edge.bundle.integrity.content import look
    from hvq_edge.bundle.integrity.signature import (
        outdated,
        read_signature,
        require_signature,
        signed_faults,
    )
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import GateFailed

    opened = open_bundle(bundle)
    content = look(opened)
    signature = read_signature(bundle)
    faults = signed_faults(content) if signature else content.faults
    fits = None if signature is None else not outdated(bundle, signature)
    if fits is False:
        faults = (*faults, "it is signed, but bundle.json was changed after that")
    if as_json:
        print_json(
            {
                "passed": not faults,
                "files": len(content.files),
                "changed": content.changed,
                "missing": content.missing,
                "added": content.added,
                "engines": content.engines,
                "key_id": signature.key_id if signature else None,
                "signature_fits": fits,
            }
        )
    else:
        results.print(
            f"{bundle}: {counted(len(content.files), 'file')} in the manifest", markup=False
        )
        for what, names in (
            ("changed", content.changed),
            ("missing", content.missing),
            ("added" if signature else "not in the manifest yet", content.added),
            ("engine, built here and not signed", content.engines),
        ):
            for name in names:
                results.print(f"  {what}: {name}", markup=False, soft_wrap=True)
    if trusted is not None:
        signed = require_signature(opened, trusted)
        if not as_json:
            results.print(f"Signed by {signed.key_id}, which {trusted} holds.", markup=False)
    if faults:
        raise GateFailed(
            f"the bundle {bundle} is not what its manifest says: {'; '.join(faults)}.",
            next_step="copy the bundle again; or, if that is right (calibrate changes "
            "bundle.json), run hvq-edge sign again",
        )
    if not as_json:
        said = "not asked whose" if signature and trusted is None else ""
        unsigned = "" if signature else "not signed"
        note = said or unsigned
        results.print("Every byte is as it should be" + (f" ({note})." if note else "."))


@group.command("pack")
def pack(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.hvq", help="Default: BUNDLE.hvq.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle as one file.

    The same bundle always gives the same bytes.
    """
    from hvq_edge.bundle.integrity.pack import SUFFIX, pack_bundle
    from hvq_edge.common.atomic import sha256_of
    from hvq_edge.evaluation.acceptance.model_card import refresh_card

    target = out or bundle.with_name(bundle.name + SUFFIX)
    refresh_card(bundle)
    packed = pack_bundle(bundle, target)
    digest, size = sha256_of(target), target.stat().st_size
    for name in packed.left_behind:
        messages.print(f"Left behind, not signed: {name}", markup=False, soft_wrap=True)
    if as_json:
        print_json(
            {
                "file": str(target),
                "sha256": digest,
                "bytes": size,
                "taken_in": packed.taken_in,
                "left_behind": packed.left_behind,
            }
        )
        return
    for name in packed.taken_in:
        results.print(f"Taken into bundle.json: {name}", markup=False, soft_wrap=True)
    results.print(f"{target}: {size / 1e6:.1f} MB, SHA-256 {digest}", markup=False, soft_wrap=True)


@group.command("unpack")
def unpack(
    file: FileArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to make; must not be there yet.")
    ],
    trusted: SignedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the bundle that a file holds, after checking all of it."""
    import shutil

    from hvq_edge.bundle.integrity.pack import unpack_bundle
    from hvq_edge.bundle.integrity.signature import require_signature

    bundle = unpack_bundle(file, folder)
    if trusted is not None:
        try:
            require_signature(bundle, trusted)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    if as_json:
        print_json({"bundle": str(folder), "files": len(bundle.manifest.files)})
        return
    results.print(f"Bundle {folder}: {counted(len(bundle.manifest.files), 'file')}", markup=False)


@group.command("install")
def install(
    file: FileArgument,
    into: Annotated[
        Path,
        typer.Option("--into", metavar="DIR", help="The device's folder of versions."),
    ],
    trusted: SignedOption = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test/--no-self-test", help="Run it on its known images before switching."
        ),
    ] = True,
    keep: Annotated[int, typer.Option("--keep", min=2, help="Versions to keep.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Bring a bundle into use on a device.

    All of it comes into use, or nothing changes. Afterwards DIR/current is the bundle. A power cut
    at any moment leaves the old one or the new.
    """
    from hvq_edge.bundle.integrity.self_test import self_test as run_self_test
    from hvq_edge.bundle.integrity.staged_update import install_bundle
    from hvq_edge.bundle.opened import Bundle

    tried: list[str] = []

    def test(bundle: Bundle) -> None:
        tried.append(run_self_test(bundle))

    done = install_bundle(file, into, trusted=trusted, test=test if self_test else None, keep=keep)
    if as_json:
        print_json(
            {
                "version": done.version,
                "former": done.former,
                "removed": done.removed,
                "self_test": tried[0] if tried else None,
            }
        )
        return
    for words in tried:
        results.print(f"Self test: {words}", markup=False, soft_wrap=True)
    if done.version == done.former:
        results.print(
            f"Already in use: {into / 'current'} was version {done.version} before, and is",
            markup=False,
        )
    else:
        before = f" (before: {done.former})" if done.former else ""
        results.print(f"In use: {into / 'current'} is version {done.version}{before}", markup=False)
    for name in done.removed:
        results.print(f"Removed old version {name}", markup=False)


@group.command("rollback")
def rollback(
    into: Annotated[Path, typer.Argument(metavar="DIR", help="The device's folder of versions.")],
    trusted: SignedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the version that was in use before.

    Every byte of it must still be right.
    """
    from hvq_edge.bundle.integrity.staged_update import roll_back

    done = roll_back(into, trusted=trusted)
    if as_json:
        print_json({"version": done.version, "former": done.former})
        return
    results.print(
        f"In use: {into / 'current'} is version {done.version} (before: {done.former})",
        markup=False,
    )
