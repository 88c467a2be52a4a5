"""A category for each product of the Online Retail data, which names none: read off the words of its description."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Codes under which the shop booked money, not goods.
BOOKKEEPING_CODES = frozenset(
    {"AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "POST", "S"},
)
BOOKKEEPING = "Bookkeeping"
UNSORTED = "Home/Unsorted"

# The first rule with a word of the description wins, so the narrow ones stand first.
_RULES: tuple[tuple[str, str], ...] = (
    ("Home/Seasonal/Christmas", "CHRISTMAS XMAS SANTA ADVENT SNOWFLAKE SNOWMAN REINDEER NATIVITY BAUBLE"),
    ("Home/Seasonal/Easter", "EASTER EGG EGGS BUNNY CHICK"),
    ("Home/Seasonal/Halloween", "HALLOWEEN SKULL SKULLS WITCH PUMPKIN"),
    ("Home/Party/Birthday", "BIRTHDAY"),
    ("Home/Party/Decorations", "PARTY BUNTING GARLAND BALLOON BALLOONS CONFETTI PIÑATA"),
    ("Home/Jewellery/Necklaces", "NECKLACE PENDANT"),
    ("Home/Jewellery/Earrings", "EARRING EARRINGS"),
    ("Home/Jewellery/Bracelets", "BRACELET BANGLE"),
    ("Home/Jewellery/Rings", "RING BROOCH CHARM DIAMANTE"),
    ("Home/Jewellery/Hair", "HAIR HAIRCLIP HAIRCLIPS SLIDE SLIDES"),
    ("Home/Bags/Lunch", "LUNCH SNACK"),
    ("Home/Bags/Purses", "PURSE WALLET"),
    ("Home/Bags/Bags", "BAG BAGS SHOPPER HANDBAG RUCKSACK SATCHEL"),
    ("Home/Kitchen/Mugs", "MUG MUGS CUP CUPS BEAKER TEACUP"),
    ("Home/Kitchen/Tea and Coffee", "TEA TEAPOT COFFEE TEASPOONS COSY"),
    ("Home/Kitchen/Baking", "CAKE CAKES BAKING CUPCAKE COOKIE BISCUIT CASES JELLY MOULD CUTTER CUTTERS"),
    (
        "Home/Kitchen/Tableware",
        "BOWL BOWLS PLATE PLATES DISH TRAY CUTLERY NAPKINS PLACEMAT PLACEMATS COASTER COASTERS",
    ),
    ("Home/Kitchen/Glassware", "TUMBLER GOBLET DECANTER BOTTLE CARAFE"),
    ("Home/Kitchen/Storage", "TIN TINS JAR JARS JAM PANTRY CONTAINER CANISTER RECIPE"),
    ("Home/Kitchen/Textiles", "APRON TOWEL TOWELS OVEN DOILY DOILEY"),
    ("Home/Kitchen/Utensils", "KITCHEN SPOON SPOONS SPATULA SCALES WHISK COLANDER"),
    ("Home/Lighting/Candles", "CANDLE CANDLES T-LIGHT T-LIGHTS TLIGHT INCENSE SCENTED"),
    ("Home/Lighting/Lamps", "LANTERN LAMP LIGHT LIGHTS LAMPSHADE CHANDELIER"),
    ("Home/Living/Cushions", "CUSHION CUSHIONS PAD PADS QUILT THROW BLANKET"),
    ("Home/Living/Clocks", "CLOCK CLOCKS"),
    ("Home/Living/Frames and Mirrors", "FRAME FRAMES MIRROR PHOTO PICTURE ALBUM"),
    ("Home/Living/Signs", "SIGN SIGNS LETTER BLOCK WORD TILE"),
    ("Home/Living/Hooks and Doors", "HOOK HOOKS HANGER DOORMAT DOOR KNOB DOORSTOP HANGERS"),
    ("Home/Living/Storage", "BOX BOXES BASKET DRAWER DRAWERS CABINET STORAGE TRINKET CHEST RACK"),
    ("Home/Living/Decorations", "HEART HEARTS DECORATION DECORATIONS ORNAMENT VASE WREATH MAGNET MAGNETS"),
    ("Home/Garden/Pots", "POT POTS PLANTER WATERING TROUGH"),
    ("Home/Garden/Outdoor", "GARDEN PARASOL UMBRELLA BIRD BIRDHOUSE HERB PICNIC GNOME"),
    ("Home/Stationery/Cards and Wrap", "CARD CARDS WRAP RIBBON RIBBONS GIFT TAPE ENVELOPE TAG TAGS"),
    (
        "Home/Stationery/Writing",
        "PEN PENS PENCIL PENCILS NOTEBOOK NOTEBOOKS BOOK PAPER ERASER ERASERS STICKERS CHALK",
    ),
    ("Home/Children/Toys", "TOY TOYS DOLL DOLLY GAME JIGSAW PUZZLE BLOCKS SKITTLES SOLDIER MARBLES JACK"),
    ("Home/Children/Room", "CHILDRENS CHILDS KIDS BABY SPACEBOY BABUSHKA CIRCUS GIRL BOY GIRLS BOYS"),
    ("Home/Bath", "BATH SOAP SPONGE HOT WATER TISSUES WASHBAG BATHROOM"),
    ("Home/Crafts", "KIT FELT FELTCRAFT KNITTING SEWING BEAD BEADS CRAFT"),
    ("Home/Flowers", "FLOWER FLOWERS ROSE ROSES BOUQUET DAISY LILY"),
)
_PATH_OF_WORD: dict[str, tuple[int, str]] = {}
for _rank, (_path, _words) in enumerate(_RULES):
    for _word in _words.split():
        _PATH_OF_WORD.setdefault(_word, (_rank, _path))

_WORD = re.compile(r"[\w-]+")


def category_path(code: str, *, description: str | None) -> str:
    """Where a product belongs. The same words give the same path, whatever else is in the file."""
    if code.upper() in BOOKKEEPING_CODES:
        return BOOKKEEPING
    found = [
        _PATH_OF_WORD[word] for word in _WORD.findall((description or "").upper()) if word in _PATH_OF_WORD
    ]
    return min(found)[1] if found else UNSORTED


def numbered_paths(paths: Iterable[str]) -> dict[str, int]:
    """A number from 1 for each path and for each of its ancestors, parents first."""
    nodes: set[str] = set()
    for path in paths:
        parts = path.split("/")
        nodes.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return {path: number for number, path in enumerate(sorted(nodes), start=1)}
