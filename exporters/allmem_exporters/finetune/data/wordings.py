"""The words of the synthetic tasks: instructions, names, things, sentences that state facts."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LEADS = (
    "",
    "",
    "Read this carefully; questions follow.\n\n",
    "Here is a text. Keep its details in mind.\n\n",
    "The following notes were collected for you:\n\n",
    "I will give you some material first and ask about it afterwards.\n\n",
    "Material:\n\n",
    "Below are several passages.\n\n",
)
BRIEFLY = (
    "",
    "",
    "Reply with the answer only.",
    "In a few words:",
    "Short answer, please.",
    "According to the text:",
    "From what you have read:",
)

FIRST_NAMES = _words(
    """
    Ada Alan Alma Amos Anna Anton Basil Bella Boris Carla Cyrus Clara Dora Dylan Edith Elias
    Emma Ezra Fiona Felix Gina Gustav Hanna Henry Ida Igor Iris Ivan Jane Jonas Julia Karl
    Kira Klaus Lara Leon Lydia Magnus Maria Martin Mila Nadia Nils Nora Oscar Olga Pablo
    Petra Quentin Rita Robert Rosa Samuel Sara Simon Sofia Tara Thomas Ursula Viktor Vera
    Walter Wanda Xenia Yusuf Yvonne Zoe Zoltan
    """
)
LAST_NAMES = _words(
    """
    Abbott Baker Barnes Becker Bennett Brandt Calder Carver Castillo Chang Cole Dalton
    Dietrich Doyle Eklund Ellis Evans Farrow Fischer Foster Garcia Gibson Grant Hansen Hayes
    Holm Ibarra Ivanov Jansen Jensen Kaplan Keller Khan Kovacs Lambert Larsen Lopez Marsh
    Meyer Moreau Nagy Novak Okafor Olsen Ortega Park Petrov Quinn Ramos Reyes Rossi Sato
    Schmidt Silva Tanaka Torres Ueda Valdez Vance Vogel Wagner Walsh Weber Young Zhang
    Zimmer
    """
)
ADJECTIVES = _words(
    """
    amber ancient brave bright broken calm clever cold copper crimson curly dusty eager
    early faint fierce frozen gentle golden green hidden hollow humble icy ivory jolly lazy
    little lost loud lucky mellow misty narrow noble odd pale patient polished proud quick
    quiet rapid rusty scarlet sharp shiny silent silver slow smooth soft solid steady stormy
    sunny sweet tall tiny velvet violet warm wild wooden young
    """
)
NOUNS = _words(
    """
    anchor apple arrow badger barrel basket beacon bell bottle bridge brook button cabin
    camel candle canyon castle cedar chapel cherry cloud comet copper coral crane cricket
    dagger dolphin donkey dragon eagle ember falcon feather fiddle forest fountain garden
    glacier hammer harbor hazel heron island jacket jungle kettle ladder lantern lemon
    lizard magnet maple marble meadow mirror mountain needle olive orchard otter oyster
    paddle parrot pebble pepper pigeon pillow planet pocket prairie puzzle rabbit raven
    ribbon river rocket saddle sailor shadow shelter signal sparrow spider statue summit
    table temple thunder ticket tiger tower trumpet tunnel turtle valley velvet violin
    walnut window winter wizard
    """
)
THINGS = (
    "access code",
    "badge number",
    "customer number",
    "door code",
    "file number",
    "invoice number",
    "locker combination",
    "parcel number",
    "passphrase",
    "reference number",
    "registration",
    "secret code",
    "serial number",
    "ticket number",
)

STATEMENTS = (
    "The {thing} of {key} is {value}.",
    "{key} has the {thing} {value}.",
    "For {key}, the {thing} was set to {value}.",
    "Note: {key} was given {value} as {thing}.",
    "{value} is the {thing} that belongs to {key}.",
    "On file for {key}: {thing} {value}.",
)
QUESTIONS = (
    "What is the {thing} of {key}?",
    "Which {thing} belongs to {key}?",
    "Tell me the {thing} of {key}.",
    "What {thing} was {key} given?",
)
REVERSED_QUESTIONS = (
    "To whom or what does the {thing} {value} belong?",
    "Whose {thing} is {value}?",
)
SEVERAL_QUESTIONS = (
    "List every {thing} of {key}, in any order.",
    "{key} has more than one {thing}. Which are they?",
    "Name all {thing}s that belong to {key}.",
)
RECORDS = (
    "{key}: {value}",
    "{key} = {value}",
    "{key} -> {value}",
    "{value} ({key})",
    "{key} | {value}",
)

STARTS = (
    "Box {name} holds {value}.",
    "At first, {value} is put into box {name}.",
    "{name} := {value}",
)
STEPS = (
    "Box {name} gets a copy of what is in box {before}.",
    "What box {before} holds is copied into box {name}.",
    "{name} := {before}",
)
CHAIN_QUESTIONS = ("What does {name} hold?", "Which value is in {name}?", "What is in box {name}?")
CHAIN_LISTS = (
    "Which boxes hold {value}?",
    "Name all boxes that contain {value}.",
)

COMMON_LEADS = (
    "Here is a list in which some words come up again and again.\n\n",
    "These words were called out one after another.\n\n",
)
COMMON_QUESTIONS = (
    "Which {number} words come up most often?",
    "Name the {number} words that are repeated most.",
)
RECORD_QUESTIONS = ("What is listed for {key}?", "Which entry belongs to {key}?")
REVERSED_RECORD_QUESTIONS = ("Which entry has {value}?", "For whom or what is {value} listed?")
REPEAT_TITLES = ("Passage {name}", "Extract {name}", "Part {name}", "Note {name}")
