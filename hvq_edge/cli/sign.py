"""``hvq-edge sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import print_json, progress_bars, results
from hvq_edge.cli.options import BundleArgument, BundleOption, JsonOption
from hvq_edge.run.latest import DEFAULT_BUNDLE


def sign(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Private key in PEM form (Ed25519).", show_default=False),
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            "--new-key",
            metavar="FILE",
            help="Make a key pair, FILE and FILE.pub, and sign nothing.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write the acceptance report again, then sign.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign all that is in a bundle, its reports included.

    A device can insist on it. The signature covers what is there now: sign last, after verify,
    bench and report. A report that is older than the thresholds or results it speaks of is refused
    (exit code 1).
    """
    from hvq_edge.errors import SettingsError

    if (key is None) == (new_key is None):
        raise SettingsError(
            "give either --key FILE, to sign, or --new-key FILE, to make a key pair.",
            next_step="see hvq-edge sign --help",
        )
    if new_key is not None:
        from hvq_edge.bundle.integrity import keys

        public = keys.new_key(new_key)
        (name,) = keys.read_public_keys(public)
        if as_json:
            print_json({"private": str(new_key), "public": str(public), "key_id": name})
            return
        results.print(f"Private key: {new_key} (keep it off the devices)", markup=False)
        results.print(f"Public key:  {public} (for the devices), key id {name}", markup=False)
        return
    assert key is not None
    from functools import partial

    from hvq_edge.bundle.integrity.signature import sign_bundle
    from hvq_edge.evaluation.acceptance.model_card import refresh_card

    if report:
        from hvq_edge.evaluation.acceptance.page import write_acceptance

        with progress_bars() as bars:
            write_acceptance(bundle, on_progress=bars)
    card = partial(refresh_card, bundle, signing=True)
    signature, taken_in = sign_bundle(bundle, key, before=card)
    if as_json:
        print_json({**signature.model_dump(mode="json"), "taken_in": list(taken_in)})
        return
    for name in taken_in:
        results.print(f"Taken into bundle.json: {name}", markup=False, soft_wrap=True)
    results.print(f"Signed by {signature.key_id}: {bundle / 'bundle.sig'}", markup=False)
