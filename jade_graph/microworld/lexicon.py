"""The words that microworlds are made of: name pieces and closed value lists.

Invariant: the lists share no word with one another, so a name tells its type. A full name belongs to exactly one
split (train, validation, test) whatever the seed: `names` deals the pairs of pieces out once and for all.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
EntityKind = Literal["person", "film", "book", "city", "company"]
SPLITS: tuple[Split, ...] = get_args(Split)
ENTITY_KINDS: tuple[EntityKind, ...] = get_args(EntityKind)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _words("""
Ada Alma Amos Anton Astrid Basil Bella Boris Bruno Carla Cecil Clara Cora Cyrus Dalia Delia Dora Edgar Edith Elias
Ella Elmer Emil Enid Enzo Erik Esme Ethel Ezra Faye Felix Fiona Flora Floyd Freda Gemma Gideon Gloria Greta Gustav
Hazel Hector Hilda Homer Hugo Ida Igor Ingrid Irene Isaac Ivan Jonas Judith Julia Karl Kira Lara Leon Lionel Lola
Luther Mabel Magda Marcus Mina Mona Nadia Nestor Nina Nora Olga Oscar Otto Paula Petra Rhoda Rufus Selma Silas Thea
Tobias Ursula Vera Viktor Wanda Wilma Xenia Yuri Zelda
""")
_LAST = _words("""
Abbott Aldrin Archer Barlow Becker Bellamy Benson Bishop Bolton Bowers Brandt Briggs Burke Calder Carver Castell
Chandler Conrad Corbett Dalton Dawson Decker Delmar Dobson Draper Drummond Dunbar Easton Ellis Fabian Farrow Fenton
Ferris Fowler Gantry Garland Gibbs Gorman Granger Hadley Halstead Harmon Hobbs Holloway Hopkins Jarvis Jensen Keller
Kendall Kepler Lambert Larkin Lawson Lindgren Lockhart Maddox Mercer Merrick Milburn Morley Norton Novak Oakes
Osborn Palmer Pardee Pickett Porter Quimby Quinn Radley Ramsey Renner Ritter Rourke Sawyer Selwyn Shelby Sinclair
Sorrel Sutton Talbot Thorpe Tilden Travers Ulrich Upton Vance Varga Wagner Walden Warner Webster Whitlock Winslow
Yates Yardley Zeller
""")
_ADJECTIVE = _words("""
Amber Ancient Azure Bitter Blazing Broken Burning Clever Copper Crimson Crooked Curious Distant Electric Emerald
Empty Endless Eternal Faded Fallen Final Forgotten Fragile Frozen Gentle Gilded Golden Hidden Hollow Humble Idle
Infinite Ivory Jagged Jolly Kindly Lonely Loyal Lucky Mighty Modern Nameless Noble Patient Perfect Polite Quiet
Rapid Reckless Restless Rusty Sacred Scarlet Secret Silent Silver Simple Sleepy Solemn Stolen Stubborn Sudden Sunken
Tender Timid Twisted Unknown Vacant Velvet Violet Wandering Weary Wicked Wooden
""")
_NOUN = _words("""
Anchor Arrow Ballad Banner Beacon Bell Blade Bridge Candle Canyon Carnival Castle Cathedral Chamber Clock Comet
Compass Crown Dagger Dancer Desert Dragon Dream Eagle Echo Empire Engine Falcon Feather Fiddle Flame Forest Fountain
Galaxy Garden Gate Ghost Glacier Hammer Harbor Horizon Hunter Island Jewel Journey Kingdom Ladder Lantern Legend
Letter Lighthouse Lion Machine Map Marble Mask Meadow Mirror Monument Mountain Oath Ocean Orchard Palace Parade
Pearl Piano Pilgrim Planet Prophet Puzzle Raven Riddle Ritual Sailor Sculptor Shadow Shepherd Signal Sparrow Statue
Storm Summit Tempest Temple Throne Tower Treasure Tunnel Umbrella Valley Violin Voyage Whisper Willow Window Winter
Wizard
""")
_PLURAL = _words("""
Angels Ashes Bandits Birds Bones Cowards Daughters Days Diamonds Dolphins Embers Exiles Fables Fathers Giants Heroes
Hours Kings Liars Lovers Memories Mermaids Miracles Monks Mothers Nights Orphans Paupers Pioneers Pirates Poets
Promises Queens Rebels Roses Saints Scholars Secrets Seasons Serpents Sisters Soldiers Songs Sorrows Spiders Spirits
Stars Strangers Swords Thieves Thorns Tigers Traitors Twins Waves Widows Wolves Wonders
""")
_CITY_FIRST = _words("""
Bright Chapel Clear Cold Deep Dry East Fair Far Flat Fort Grand Great High Little Long Lower Middle New North Old
Port Saint South Stony Upper West White Wide Windy
""")
_CITY_LAST = _words("""
Alderby Ashford Banbury Bexley Bramley Brenton Burnham Camden Carlow Chester Clifton Colby Corwen Crosby Croydon
Darby Denby Dover Dunmore Elgin Epsom Exmoor Fairfax Filey Galway Glenrock Grimsby Halton Hampton Hartley Haverhill
Hexham Hilton Ilford Ipswich Kelso Kendrick Keswick Kirby Lanark Langley Leiston Ludlow Lynton Maldon Malvern Marlow
Melrose Midford Milton Minster Morven Naseby Newark Norwood Oakham Oldbury Oxley Penrith Pinner Preston Radford
Redcar Ripon Romsey Rothbury Rugby Rydal Selby Severn Shelton Skelby Stafford Stanley Stroud Sudbury Tamworth
Telford Thirsk Totnes Trenton Truro Tynedale Wakefield Walsall Wareham Warwick Welford Whitby Wigan Winford Witham
Woburn Yarmouth Yarrow
""")
_COMPANY_FIRST = _words("""
Acme Aegis Apex Arbor Argo Atlas Aurora Avalon Baxter Boreal Cobalt Condor Coral Cosmos Crescent Cygnus Delta Domino
Dynamo Eclipse Elysian Ember Epoch Equinox Everest Fabrik Fulcrum Gamma Garnet Gemini Halcyon Harvest Helios Hydra
Icarus Indigo Janus Jasper Juniper Karma Kestrel Kodiak Lattice Lotus Lumen Lyra Magnet Maple Matrix Mercury
Meridian Mosaic Nebula Neptune Nimbus Nordic Nova Oasis Obelisk Omega Onyx Optima Orbit Orion Osprey Pegasus Phoenix
Pinnacle Polaris Prism Pulsar Quartz Quasar Radius Regent Sable Saffron Sapphire Saturn Sequoia Sierra Sigma
Solstice Spectra Sterling Stratus Tango Titan Topaz Triton Tundra Umbra Unicorn Vector Vega Vertex Vortex Zenith
Zephyr Zodiac
""")
_COMPANY_LAST = _words("""
Agency Associates Brothers Bureau Capital Company Corporation Designs Dynamics Enterprises Foundry Group Guild
Holdings House Industries Institute Labs League Limited Motors Partners Pictures Press Services Society Supplies
Systems Trust Union Ventures Works
""")

YEARS: tuple[str, ...] = tuple(str(y) for y in range(1900, 2000))
COUNTRIES = _words("""
Albion Arvania Belmora Borduria Caldonia Drovia Elbonia Fenwick Freedonia Genovia Gondal Illyria Karlova Lavonia
Lorania Molvania Narnoria Nordland Ostania Pottsylvania Ruritania Sarkhan Sylvania Tomania Urkesh Valdoria Vespugia
Wallaria Zubrowka Zamunda
""")
JOBS = _words("""
baker banker barber biologist botanist butcher carpenter chemist clerk cook dentist doctor farmer fisherman gardener
geologist jeweller judge lawyer librarian mechanic miner musician nurse painter pharmacist pilot plumber potter
professor reporter surgeon tailor teacher translator watchmaker weaver
""")
SUBJECTS = _words("""
alchemy astronomy ballooning beekeeping botany chess courage cycling dancing democracy exile fencing friendship
gambling geometry grief jealousy justice love medicine migration money mountaineering music navigation philosophy
poverty railways religion revenge sailing slavery smuggling surgery war weather whaling
""")
PRODUCTS = _words("""
batteries bicycles blankets boots bottles bricks buttons cameras candles carpets chairs cheese chocolate clocks
curtains engines furniture glass gloves guitars helmets ink kettles knives ladders lamps mirrors needles paint paper
pencils pianos radios ropes soap spoons telescopes tents toys tractors umbrellas zippers
""")

_PIECES: dict[EntityKind, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "person": (_FIRST, _LAST, " "),
    "film": (_ADJECTIVE, _NOUN, " "),
    "book": (_NOUN, _PLURAL, " of "),
    "city": (_CITY_FIRST, _CITY_LAST, " "),
    "company": (_COMPANY_FIRST, _COMPANY_LAST, " "),
}
# Of every ten names, six train, two develop, two test.
_SHARE: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2, 3, 4, 5), "validation": (6, 7), "test": (8, 9)}


@cache
def names(kind: EntityKind, split: Split) -> tuple[str, ...]:
    """Every name that an entity of `kind` can have in worlds of `split`; the three splits are disjoint."""
    first, second, joint = _PIECES[kind]
    pairs = [f"{a}{joint}{b}" for a in first for b in second]
    random.Random(f"microworld names {kind}").shuffle(pairs)
    return tuple(name for i, name in enumerate(pairs) if i % 10 in _SHARE[split])


def pieces() -> tuple[tuple[str, ...], ...]:
    """The lists that names are made of."""
    return tuple(dict.fromkeys(half for first, second, _ in _PIECES.values() for half in (first, second)))


@cache
def words() -> tuple[str, ...]:
    """Every name piece and value, sorted: what a closed vocabulary must hold beside the templates' words."""
    parts = {word for half in pieces() for word in half}
    return tuple(sorted(parts | {"of", *YEARS, *COUNTRIES, *JOBS, *SUBJECTS, *PRODUCTS}))
