# ruff: noqa: E501 (tables of wording)
"""What simulated people talk about: facts of their lives, told as small stories.

One fact a line: what it does to the person who tells it (+ good, - bad, . neither), the fact, what
a listener would call its subject, and the subject's kind (who, event, thing, doing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["who", "event", "thing", "doing"]
_NEWS = {"+": 1, "-": -1, ".": 0}

SLOTS: dict[str, tuple[str, ...]] = {
    "dog": ("Biscuit", "Luna", "Otis", "Pepper", "Rufus", "Maple", "Ziggy", "Nala", "Bruno"),
    "breed": ("spaniel", "terrier", "labrador", "beagle", "collie", "dachshund", "poodle"),
    "kin": ("sister", "brother", "dad", "mum", "grandma", "uncle", "aunt", "cousin"),
    "friend": ("Maya", "Tom", "Priya", "Jonas", "Elena", "Sam", "Aisha", "Felix", "Rosa"),
    "child": ("daughter", "son", "niece", "nephew"),
    "boss": ("boss", "manager", "supervisor", "team lead"),
    "job": ("bakery", "library", "hospital", "bank", "school", "warehouse", "studio", "bookshop"),
    "project": ("budget report", "website launch", "inventory", "big presentation", "audit"),
    "subject": ("statistics", "chemistry", "law", "history", "anatomy", "French", "economics"),
    "plant": ("tomatoes", "roses", "courgettes", "strawberries", "sunflowers", "dahlias"),
    "pest": ("slugs", "snails", "pigeons", "squirrels", "caterpillars"),
    "dish": ("lasagne", "ramen", "curry", "paella", "sourdough", "dumplings", "risotto"),
    "cake": ("carrot cake", "cheesecake", "apple pie", "lemon tart", "brownies"),
    "team": ("Rovers", "United", "Wanderers", "Albion", "City", "Athletic"),
    "instrument": ("guitar", "piano", "violin", "drums", "clarinet", "ukulele"),
    "band": ("The Lanterns", "Blue Harbour", "Paper Kites", "Night Trains", "Velvet Fox"),
    "city": ("Lisbon", "Leeds", "Porto", "Ghent", "Denver", "Bergen", "Turin", "Halifax"),
    "flat": ("flat", "house", "apartment", "place"),
    "trip": ("Portugal", "Scotland", "Japan", "Iceland", "Sicily", "Norway"),
    "book": ("detective novel", "biography", "fantasy series", "ghost story", "thriller"),
    "show": ("baking show", "space drama", "crime series", "period drama", "comedy"),
    "race": ("half marathon", "ten kilometre run", "triathlon", "charity run", "marathon"),
    "bike": ("bike", "scooter", "old car", "van"),
    "craft": ("pottery", "knitting", "woodwork", "painting", "photography", "sewing"),
    "pet": ("cat", "parrot", "rabbit", "hamster"),
    "day": ("on Monday", "on Tuesday", "on Friday", "on Saturday", "two days ago", "last week"),
    "colour": ("blue", "green", "yellow", "orange", "purple", "red"),
}

_STORIES = """
# dog
. we have a {breed} called {dog}, [almost|nearly|just over] a year old | {dog} | who
+ {dog} [finally|at last] learned to [sit|come|wait] when I call [in the park|outside|] | {dog} | who
- {dog} chewed [my favourite shoes|the sofa cushion|a whole pair of headphones] {day} | {dog} | who
- the vet [says|thinks] {dog} has [a stomach infection|a sore paw|an ear infection] | the vet visit | event
+ {dog} [sleeps|snores] on my feet [every evening|while I read] and I love it | {dog} | who
. I [walk|take] {dog} along the [river|canal|beach] before breakfast | the morning walks | thing
+ {dog} made a friend at the park, a huge {colour} poodle called [Duke|Coco|Waffles] | {dog} | who
- somebody shouted at me because {dog} barked [at the postman|in the lift] | the shouting | event
. we are thinking about a second [puppy|dog] [for company|] | a second puppy | thing
# work
. I work at a {job}, mostly [early shifts|with the public|in the back office] | the {job} | thing
- my {boss} [moved|brought forward] the deadline for the {project} again | the {project} | event
- I made a mistake in the {project} and my {boss} [noticed|was angry] | the mistake | event
+ I finished the {project} {day} and people were [pleased|really pleased] | the {project} | event
+ I [got|was offered] a promotion at the {job} [out of nowhere|after four years] | the promotion | event
- {friend} from work [quit|is leaving] and I [will be|am] lonely at lunch | {friend} | who
. there is a new colleague who [hums|talks to the printer|brings a kettle] all day | the new colleague | who
- I have an awful meeting with my {boss} [coming|on Thursday] and I dread it | the meeting | event
+ my {boss} thanked me in front of everyone and I was proud | the thank-you | event
. we switched to [standing desks|a different shift plan|open offices] [in spring|] | the switch | event
# garden
. I [grow|planted] {plant} [on the balcony|behind the shed|in raised beds] | the {plant} | thing
+ my {plant} are growing beautifully [after the rain|this month] | your {plant} | thing
- the {pest} ruined half of my {plant} overnight | the {pest} | thing
. I built a [compost bin|little pond|bench] from old [pallets|planks] | building it from pallets | doing
+ I picked the first {plant} {day} and gave some to [my neighbour|{friend}], pure joy | your {plant} | thing
- the hose [broke|leaked] and flooded the [path|neighbour's cellar] | the hose | thing
+ a hedgehog moved in under the hedge and it is a joy to watch | the hedgehog | who
. I am [planning|drawing] the flower beds for autumn | planning the flower beds | doing
- my {plant} wilted while I was away | your {plant} | thing
# exam
. I am studying for my {subject} exam | the {subject} exam | event
. {friend} and I [meet|study] in the library after dinner | studying with {friend} | doing
. I make [flash cards|mind maps] in {colour} ink | the cards in {colour} ink | thing
- I failed the mock test in {subject} [badly|by two points] | the mock test | event
+ my professor praised my essay on {subject}, I was thrilled | the essay | thing
- I am so nervous about the {subject} exam that I [cannot|hardly] sleep | the {subject} exam | event
- I forgot the [formulas|dates|vocabulary] in the middle of the oral exam | the oral exam | event
+ I passed the {subject} exam, [I opened the letter {day}|with a better grade than I expected] | the {subject} exam | event
# moving
. we are moving to {city} [in spring|next month|before the holidays] | the move to {city} | event
+ we found a sunny {flat} with a [balcony|big kitchen|view of the park] in {city} | the {flat} in {city} | thing
- the landlord wants to keep the deposit, it is so unfair | the deposit | thing
- the movers broke grandmother's [mirror|lamp|clock] | the broken things | thing
. I am packing boxes [in the evenings|room by room] | the packing | doing
+ our new neighbours welcomed us with [soup|flowers|a pie], so lovely | the new neighbours | who
- I miss my old street and I am lonely in {city} | {city} | thing
. the walls of the {flat} are {colour} and I [kept|repainted] them | the {colour} walls | thing
# illness
- my {kin} is in hospital [since Monday|since last week|after a fall] | your {kin} | who
- my {kin}'s operation was delayed and everyone is worried | the operation | event
. I drive to see my {kin} after work, [an hour each way|most evenings] | the drives to your {kin} | thing
+ my {kin} [walked|stood up] again {day}, I am so relieved | your {kin} | who
- the doctors [argue|are arguing] about the treatment and my {kin} is in pain | the treatment | event
- my {kin} is sad and hardly talks on the phone | your {kin} | who
. we take turns cooking for my {kin} | cooking for your {kin} | doing
+ my {kin} came home and we celebrated with {cake} | your {kin} | who
# cooking
. I am learning to cook {dish} [from scratch|from an old book] | cooking {dish} | doing
+ my {dish} turned out perfect {day} | the {dish} | thing
- I burned the {dish} with guests at the table, so embarrassing | the burned {dish} | event
+ {friend} asked me for the recipe of my {cake}, I was proud | the {cake} | thing
. I bought a [cast iron pan|pasta machine|spice grinder] at the flea market | the flea market find | thing
- the oven [died|broke] with the {cake} inside | the oven | thing
. my {kin} taught me the trick with the [butter|stock|dough] | the trick | thing
+ we had [twelve|eight] people for dinner and everybody laughed [till midnight|] | the dinner | event
# football
. I have supported {team} since I was [six|nine|a child] | {team} | thing
+ {team} won three nil {day}, I enjoyed every minute | the match | event
- {team} lost in the last minute, I was so frustrated | the match | event
. I play five-a-side with [colleagues|neighbours] on Wednesdays | five-a-side | doing
- I hurt my [knee|ankle] at training | the training injury | event
+ I scored twice, [my first goals this season|one with my left foot] | the goals | event
. my {child} wants to be a goalkeeper | your {child} | who
- our coach left and the team is a mess | the coach | who
# music
. I play the {instrument} [a bit|with two friends|in a small band] | the {instrument} | thing
. I am learning a song by {band} | the song by {band} | thing
+ I got tickets for {band}, I was so lucky | the {band} concert | event
. I practise with headphones because of the neighbours | practising the {instrument} | doing
+ my teacher says my {instrument} playing got much better | your playing | thing
- our singer quit two days before the concert | the singer | who
+ we had our first concert in a [café|church|cellar] and people cheered | the concert | event
- I argued with the band over the [songs|money|rehearsals] | the argument | event
- my {instrument} fell down the stairs and it is broken | the {instrument} | thing
# holiday
. I want to [travel|go] to {trip} in [May|autumn|winter] | the trip to {trip} | event
+ I booked the train to {trip}, I am so excited | the trip to {trip} | event
- I lost my passport a day before {trip} | the passport | thing
- our flight to {trip} was cancelled and we slept at the airport | the cancelled flight | event
. we camp with a {colour} tent from the seventies | camping | doing
+ we swam in a lake in {trip} with nobody around, it was magic | the lake | thing
- my suitcase was stolen at the station | the stolen suitcase | event
. I collect [postcards|stones|train tickets] from each journey | the collection from your journeys | thing
# running
. I am training for a {race} | the {race} | event
+ I ran [ten|fifteen|eight] kilometres without a break {day}, finally | the long run | event
- I got [shin splints|a blister|a sore hip] and had to stop running | the injury | event
. I run before sunrise with a head torch | running before sunrise | doing
+ {friend} joined me for a run and it was great fun | running with {friend} | doing
. I log my kilometres in a paper notebook | the notebook | thing
- I came last in the {race} and I was disappointed | the {race} | event
# reading
. I am [halfway|three chapters] into a {book} | the {book} | thing
+ the ending of the {book} was brilliant | the ending | thing
- I dropped my {book} in the bath and it is ruined | the {book} | thing
. our book club meets above a pub | the book club | thing
+ the library saved me a signed copy of the {book}, so sweet | the signed copy | thing
- the book club argued and two members quit | the book club | thing
. we watch a {show} on [Sundays|rainy evenings] | the {show} | thing
- they cancelled the {show} after one season, I am upset | the {show} | thing
# children
. my {child} starts school [in September|this summer] | your {child} | who
+ my {child} learned to [ride a bike|swim|read], I was so proud | your {child} | who
- my {child} has a fever and nobody slept | your {child} | who
. my {child} draws [dragons|buses|octopuses] on everything | the drawings | thing
- my {child} was left out by the others and cried | your {child} | who
+ my {child} made me a {colour} paper crown, so lovely | the paper crown | thing
. we are building a [tree house|cardboard castle|toy boat] | the building | doing
- the teacher complained about my {child} | the teacher | who
# transport
. I commute by {bike}, [forty minutes|six kilometres] each way | the {bike} commute | thing
- my {bike} broke down in the rain | your {bike} | thing
+ I repaired the {bike} myself and it worked at once | repairing the {bike} | doing
- somebody stole the [mirror|saddle|radio] of my {bike} | your {bike} | thing
. I named the {bike} [Gertrude|Captain|Susan] | the name | thing
+ a stranger helped me push the {bike} home, what a lovely man | the stranger | who
- the train was so overdue that I missed {friend}'s birthday | the birthday | event
# craft
. I started {craft} in an evening class | {craft} | doing
+ I sold my first piece of {craft} at a market, I was thrilled | your first sale | event
- my best piece of {craft} broke in the car | the broken piece | thing
. I share a workshop with a retired [sailor|dentist|teacher] | the workshop | thing
+ {friend} hung my {craft} in the hallway, that made me happy | {friend} | who
- I ordered the wrong material and wasted the money, a stupid mistake | the wrong material | thing
. I am making a {colour} [bowl|scarf|frame] for my {kin} | making the present | doing
# pet
. my {pet} is called [Pickle|Mister Darcy|Olive] and rules the {flat} | your {pet} | who
- my {pet} escaped {day} and I panicked | your {pet} | who
+ the {pet} came back through the kitchen window, I was so relieved | your {pet} | who
. my {pet} only eats [melon|tuna|from a {colour} bowl] | the diet | thing
- my {pet} is old and the vet is not sure about the winter | your {pet} | who
+ my {pet} learned to open the [fridge|door] and it is hilarious | your {pet} | who
# friends
. {friend} and I have known each other since [school|a summer job|kindergarten] | {friend} | who
. we play cards on Thursdays, loser washes up | the card evenings | thing
- {friend} moved to {city} and I feel alone | {friend} | who
+ {friend} surprised me with a visit, we laughed so much | the visit | event
- {friend} forgot my birthday | the birthday | event
- {friend} and I argued about money and we have not talked | the argument | event
+ {friend} apologised and I am so relieved | the apology | event
+ {friend} is getting married and I am to give a speech, I am delighted | the wedding | event
"""


@dataclass(slots=True, frozen=True)
class Fact:
    """One thing to tell, still with its slots."""

    text: str
    news: int
    """1 good, -1 bad, 0 neither, for the person who tells it."""
    subject: str
    """As a listener would call it."""
    kind: Kind


def _parse(stories: str) -> dict[str, tuple[Fact, ...]]:
    out: dict[str, list[Fact]] = {}
    facts: list[Fact] = []
    for line in filter(None, stories.splitlines()):
        if line.startswith("#"):
            facts = out.setdefault(line[2:], [])
            continue
        text, subject, kind = line[2:].rsplit(" | ", 2)
        if kind not in ("who", "event", "thing", "doing"):
            raise ValueError(f"no kind of subject: {kind}")
        facts.append(Fact(text, _NEWS[line[0]], subject, kind))  # type: ignore[arg-type]
    return {name: tuple(told) for name, told in out.items()}


TOPICS = _parse(_STORIES)
