"""`stcli zoo`: lists the networks that come with the package, and shows their cards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.table import Table

from stcore import errors, zoo
from stcore.cli.console import make_console, say
from stcore.cli.options import ZooListOptions, ZooShowOptions
from stcore.cli.parsing import act, parse
from stcore.evaluation.accuracy import Accuracy, percent
from stcore.results import names

HELP = """usage: stcli zoo ACTION [options]

  list        list the networks: data, threat model, accuracies, size
  show NAME   show the card of one: how it was made, and what was measured

  stcli zoo ACTION --help lists an action's options
"""
SHOWN = ("natural", "autoattack")
USE = "zoo:NAME names one in stcli evaluate, in --init-weights and in stcore.load"


def main(args: Sequence[str]) -> int:
    """Runs the action that the first word names; returns the exit code."""
    actions = {"list": list_, "show": show}
    return act(actions, HELP, args)


def list_(args: Sequence[str]) -> int:
    """Prints the table of the networks."""
    options = parse(ZooListOptions, args, "stcli zoo list")
    cards = [zoo.read_card(name) for name in zoo.names()]
    if options.json:
        print(json.dumps([dataclasses.asdict(card) for card in cards], indent=2))
        return errors.OK
    table = Table()
    for title in ("name", "data", "threat", "network", "method"):
        table.add_column(title, no_wrap=True)
    for title in ("parameters", *(f"{names.attack_in_words(attack)} %" for attack in SHOWN), "images", "MB"):
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards:
        config, scores = card.config, [accuracies(card)[attack] for attack in SHOWN]
        table.add_row(
            f"{zoo.PREFIX}{card.name}",
            names.data(config["dataset"]),
            threat(card),
            names.model(config["model"]),
            names.method(config),
            f"{card.parameters:,}",
            *map(percent, scores),
            f"{scores[-1].total:,}",
            f"{card.size / 1e6:.2f}",
        )
    console = make_console()
    console.print(table)
    say(console, f"images are those of AutoAttack, 95 % intervals; {USE}")
    return errors.OK


def show(args: Sequence[str]) -> int:
    """Prints the card of a network."""
    options = parse(ZooShowOptions, args, "stcli zoo show")
    card = zoo.read_card(options.name.removeprefix(zoo.PREFIX))
    if options.json:
        print(json.dumps(dataclasses.asdict(card), indent=2))
        return errors.OK
    config, console = card.config, make_console()
    facts = {
        "network": f"{names.model(config['model'])}, {card.parameters:,} parameters",
        "data": card.data_note,
        "method": f"{names.method_in_words(config['method'])}, seed {config['seed']}, {card.checkpoint} epoch",
        "threat model": threat(card),
        **{
            f"{names.attack_in_words(name)} %": f"{percent(score)}, {score.total:,} images"
            for name, score in accuracies(card).items()
        },
        "attacks": ", ".join(card.attacks.values()),
        "weights": f"SHA-256 {card.weights}",
        "records": f"SHA-256 {card.records}, {card.files['npz']}",
        "test split": f"fingerprint {card.data}",
        "versions": ", ".join(f"{name} {version}" for name, version in card.versions.items()),
        "licence": card.licence,
    }
    say(console, f"{zoo.PREFIX}{card.name}")
    for name, fact in facts.items():
        say(console, f"  {name}: {fact}")
    say(console, "made by:")
    for command in card.commands:
        say(console, f"  {command}")
    return errors.OK


def accuracies(card: zoo.Card) -> dict[str, Accuracy]:
    """The measured accuracies by attack."""
    return {name: Accuracy.of_json(score) for name, score in card.accuracies.items()}


def threat(card: zoo.Card) -> str:
    """The norm and radius of the attacks: l∞, ε = 8/255."""
    return f"{names.norm(card.norm)}, ε = {names.radius(card.epsilon)}"
