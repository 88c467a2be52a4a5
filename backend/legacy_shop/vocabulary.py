"""Words that the generated shop is made of."""

from __future__ import annotations

FIRST_NAMES = (
    *(
        "Ada",
        "Grace",
        "Edsger",
        "Barbara",
        "Tony",
        "Radia",
        "Donald",
        "Leslie",
        "Frances",
        "Ken",
        "Margaret",
        "Alan",
    ),
    *(
        "Zoë",
        "José",
        "Łukasz",
        "Søren",
        "Émilie",
        "Jürgen",
        "Ольга",
        "花子",
        "Ngọc",
        "Bríd",
        "Çağla",
        "Renée",
    ),
)
LAST_NAMES = (
    *(
        "Lovell",
        "Harper",
        "Dahl",
        "O'Brien",
        "Smith-Jones",
        "Taylor",
        "Patel",
        "Khan",
        "Evans",
        "de la Cruz",
        "Kim",
    ),
    *(
        "Müller",
        "Núñez",
        "Wójcik",
        "Åkesson",
        "Šimić",
        "Nguyễn",
        "Ó Súilleabháin",
        "Иванова",
        "小林",
        "Gonçalves",
    ),
)
STREETS = (
    "High Street",
    "Station Road",
    "Mill Lane",
    "Rue de l'Église",
    "Königstraße",
    "Calle Mayor",
    "Church Close",
)
CITIES = (
    "London",
    "Leeds",
    "York",
    "Kraków",
    "São Paulo",
    "Zürich",
    "Malmö",
    "Cork",
    "Lyon",
    "Saint-Étienne",
)
COUNTRIES = (
    "United Kingdom",
    "UK",
    "uk",
    "EIRE",
    "Deutschland",
    "France",
    "Côte d'Ivoire",
    "Österreich",
    "Polska",
)

CATEGORY_ROOTS = ("Home", "Garden", "Office", "Offers", "Seasonal")
CATEGORY_NAMES = (
    *(
        "Kitchen",
        "Kitchenware",
        "Mugs",
        "Tea & Coffee",
        "100% Cotton",
        "Sale_Items",
        "Lamps",
        "Candles",
        "Café",
    ),
    *("Crème", "Storage", "Boxes", "Frames", "Textiles", "Toys", "Cards", "Möbel", "Tools", "Pots", "Bath"),
)
ADJECTIVES = (
    "RED",
    "WHITE",
    "VINTAGE",
    "SMALL",
    "LARGE",
    "RETRO",
    "WOODEN",
    "SET OF 6",
    "HANGING",
    "PAINTED",
    "CRÈME",
)
MOTIFS = ("HEART", "POLKADOT", "ROSE", "STAR", "BIRD", "UNION JACK", "PAISLEY", "DAISY", "CAFÉ", "NORDIC")
WARES = (
    "MUG",
    "T-LIGHT HOLDER",
    "LANTERN",
    "CUSHION",
    "CAKE TIN",
    "LUNCH BAG",
    "CLOCK",
    "BUNTING",
    "JAM JAR",
    "DOORMAT",
)
