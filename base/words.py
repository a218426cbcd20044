"""Word lists for the made samples: plain, common words, so that the shapes are what is learned."""

from __future__ import annotations

NAMES = (
    "Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Rosa Sam "
    "Tom Uma Victor Wendy Yusuf Zoe Alice Bob Carlos Diana Elena Felix Hana Ivan Julia Kenji Lena "
    "Mona Noah Omar Priya Ravi Sara Tariq Vera Will"
).split()
CITIES = (
    "Paris London Berlin Madrid Rome Vienna Oslo Lisbon Dublin Prague Athens Cairo Lima Tokyo "
    "Seoul Delhi Sydney Boston Chicago Denver Seattle Dallas Austin Miami Toronto Geneva Zurich "
    "Helsinki Warsaw Budapest Nairobi Accra Mumbai Kyoto Portland Houston Phoenix"
).split()
COUNTRIES = (
    "France Spain Italy Norway Brazil Peru Chile Japan China India Egypt Kenya Ghana Canada Mexico "
    "Poland Greece Turkey Iran Iraq Nepal Cuba Sweden Finland Austria Germany Portugal Australia"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COLOURS = "red blue green yellow black white brown orange purple pink grey".split()
ANIMALS = "dog cat horse cow sheep lion tiger bear fox wolf rabbit mouse goat duck owl frog".split()
FOODS = "bread cheese rice soup apple cake pasta fish potato salad egg butter banana honey".split()
TOOLBOX = "hammer saw drill wrench ladder shovel rake nail screwdriver axe".split()
CLOTHES = "hat coat shirt shoe dress sock scarf glove jacket belt".split()
CUISINES = "Italian Indian Mexican Thai French Greek Chinese Japanese Turkish Spanish".split()
WEATHER = "sunny cloudy rainy windy snowy foggy stormy clear".split()
KINDS: dict[str, list[str]] = {
    "animal": ANIMALS,
    "food": FOODS,
    "colour": COLOURS,
    "city": CITIES,
    "name": NAMES,
    "day": DAYS,
    "tool": TOOLBOX,
    "clothing": CLOTHES,
}
GOOD = "great lovely wonderful excellent perfect delicious friendly fast beautiful amazing".split()
BAD = "terrible awful bad slow rude boring broken dirty cold disappointing horrible".split()
THINGS = "food service film book hotel room phone driver place song game app".split()
