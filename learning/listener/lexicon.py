# ruff: noqa: E501 (tables of patterns)
"""What the simulated listener notices in words: small lists and patterns, read by `reading`.

They know the listener's own wording (`topics`, `talk`) and the common ways in which people and
language models acknowledge, praise, joke and refuse. Nothing here is learned.
"""

from __future__ import annotations

import re

STOP = frozenset(
    """
    a about actually after again ah all almost alright also always am an and another any anything
    anyway are around as ask at away back be because been before being bit but by call came can cannot
    cause come could day days did do does doing done each either else enough even ever every
    everything everyone far feel few find for from funny get getting give go goes going gone gonna
    good got great had happen has have he hear heard hello her here hey hi him his hmm hope how i if
    in instead interesting into is it its just keep kind knew know last later least let like
    little ll long look lot made make makes many may maybe me mean might mine more most much must my
    myself never new next nice no none not nothing now of off oh ok okay old on once one only or
    other our out over part people pretty probably put quite re really right said same saw say see
    seem she should since so some someone something sometimes soon sort sound start still stuff
    such sure take talk tell than thank that the their them then there these they thing think this
    those thought through time to today together told too took tomorrow tonight true try turn two
    um under until up us use used ve very wait want was way we week weekend well went were what when
    where which while who whole why will wish with without won wonder word work would wow yeah year
    yes yesterday yet you your yourself
    """.split()
)
"""Words that say nothing of a topic."""

GOOD = """
    amaz awesom beaut best better blast brilliant celebrat champion cheer chuffed cosy deliciou
    delight eas enjoy excit fantastic favourit fine finally fun glad gorgeou happ happiest hilariou
    hug joy laugh learned love lovely lucky magic offer
    passed peaceful perfect pleas proud promot relax reliev scored smil success sunny sweet thrill
    treat win wonderful won worked
""".split()
BAD = """
    accident ache afraid alone angr anxiou argu arguing argument awful bad blam blister blocked bored
    boring broke broken burnt burned cancel chewed complain confus cried crie cry damp dark dead deadline delayed die
    died disappoint disaster dread drop embarrass exhaust fail fall fed fever flood forgot frustrat
    grumpy hate hospital hurt ignor ill infect injur jealou leak limp lone lonely lost mess miserab
    miss mistak mould nervou nightmare noisy overdue pain panic poor quit ruin sad scared shout
    sick slug snapped sore stole stolen stress stuck terrib tired toothache tough ugh unfair unhappy
    upset useless vet vomit wilt worr worse worst wrong
""".split()

WARM = re.compile(
    r"\b(glad|happy (for|to hear)|delight(ed|ful)|congrat\w*|wonderful|fantastic|awesome|amazing|"
    r"lovely|brilliant|great (news|to hear)|good (news|for you)|that.?s (so |really |just )?"
    r"(great|good|cool|nice|sweet|excellent|super|beautiful)|sounds? (so |really |like )*(a )?"
    r"(great|good|fun|cool|nice|perfect|relaxing|exciting|delicious|beautiful)|well done|hooray|"
    r"yay|how (nice|exciting|cool)|well deserved|made my day|love (that|hearing)|excited for)\b"
)
"""Shared joy."""
SYMPATHY = re.compile(
    r"\b(sorry|tough|rough|awful|terrible|that.?s (so |really |just )?(hard|bad|sad|horrible|"
    r"frustrating|annoying|unfair|stressful|scary|exhausting)|sounds? (so |really |very |like )*"
    r"(hard|difficult|stressful|frustrating|exhausting|painful|scary|annoying|upsetting|sad|lonely)|"
    r"must (be|feel|have been|have felt) (so |really |very )?(hard|tough|difficult|stressful|"
    r"frustrating|worr\w+|scary|exhausting|upsetting|painful|lonely|a lot|draining|heavy)|"
    r"oh no|hang in there|take care of yourself|feel(s|ing)? better|here for you|poor (you|thing)|"
    r"i understand (how|that|why)|no wonder|makes sense (that )?you)\b"
)
"""Shared trouble."""

_KIND = (
    r"(amazing|wonderful|incredible|brilliant|smart|clever|talented|funny|kind|charming|gifted|"
    r"beautiful|lovely|creative|fascinating|impressive|inspiring|special|genius|awesome|great|fantastic|"
    r"perfect|extraordinary|delightful|remarkable|intelligent|wise|sweet|generous|thoughtful|"
    r"interesting|exceptional|outstanding|star|legend|best|coolest|kindest|smartest|funniest|"
    r"nicest|cleverest|wisest|sweetest)"
)
PRAISE = re.compile(
    rf"\byou(.re| (clearly |obviously |truly |really )?are| must be| seem| sound)( (such|so|really|truly|very|just|always|honestly|"
    rf"simply|absolutely|clearly|obviously|quite|like|a|an|the|one|of|most|total|totally))* {_KIND}\b"
    rf"|\byou have (such |really )?(a |an )?(\w+ )?{_KIND}\b"
    rf"|\b(someone|anyone|anybody|somebody|people|person) (as|so|like) (you|{_KIND})\b"
    rf"|\bi (really |truly |just |so )?(admire|adore|look up to) (you|how you|your|the way you)\b"
    rf"|\b(your|you) \w* ?(mind|taste|voice|smile|brain|style|wit|wisdom) (is|are) (\w+ )?{_KIND}\b"
    rf"|\bwhat an? {_KIND} (question|person|mind|thing to say|way to put)"
    r"|\bi (could|love) (listen|listening|talk|talking) to you\b"
    r"|\bonly you could\b|\bi wish i were (more )?like you\b|\bi.?m (such )?(a|your) (huge |big(gest)? )?fan\b"
    r"|\bnobody (tells|says|puts|does) \w+ (as|like) (\w+ )?(as )?you\b|\byou.?re the best\b"
    r"|\bgreat question\b"
)
"""Praise of the listener's person, not of what they told."""
JOKE = re.compile(
    r"\b(why did (the|my)|why do(n.t)? (the |my )?\w+ \w+ .*\?.*because|what do you call|"
    r"knock knock|ha ?ha(ha)*|just kidding|i.?m kidding|joke|joking|pun intended|walks? into a bar|"
    r"ba dum|lol|punchline|what did the \w+ say|what.?s the difference between|how many \w+ does it "
    r"take)\b"
)
ROBOT = re.compile(
    r"\b(as an? (ai|artificial|language|assistant|digital|chatbot|virtual)|language model|"
    r"i.?m (just |only )?an? (ai|artificial|computer|chatbot|language|virtual|digital)|"
    r"(don.t|do not) have (personal |any )?(feelings|emotions|experiences|opinions|a body)|"
    r"(can.t|cannot|unable to|not able to) (assist|help|provide|answer|discuss|engage|comply)|"
    r"how (can|may) i (assist|help) you|i.?m here to (help|assist)|assist you (with|today)|"
    r"i.?m programmed|my training|your (ai )?assistant|feel free to ask)\b"
)
DISMISSIVE = re.compile(
    r"\b(whatever|who cares|don.t care|get over it|not my problem|so what(?= *[,.!?]|$)|boring|big deal|"
    r"don.t (really )?(care|see the point)|stop complaining|not interested|could be worse|move on|"
    r"everyone has|calm down|deal with it|that.?s your problem|nobody asked|skip the details|"
    r"can we talk about something else|doesn.t matter|you worry too much|grow up|cheer up|"
    r"don.t have time|spare me|mak(e|es|ing) a fuss)\b"
)
FILLER = re.compile(
    r"^(well |oh |ah |hm+ |yeah |right |okay |ok |yes |so )*(i see|interesting|that.?s interesting|how interesting|and that.?s how|"
    r"makes sense|that makes sense|fair enough|good to know|got it|understood|it is what it is|"
    r"that.?s life|life is|these things happen|time flies|i hear you|you never know|one step at a|"
    r"every day is|things (have|tend)|that happens|everything (happens|has)|such is|who knows|"
    r"all things|it depends|that.?s how it)\b"
)
"""Openings of what fits anything."""
GREETING = re.compile(r"^(hi|hello|hey|good (morning|evening|afternoon)|welcome)\b")

OPEN = re.compile(
    r"(^ *|[,;:] ?|\b(and|so|but|or|then|well|hm|oh) )(how|what|why|which|who|where|when)\b(?! is it "
    r"going)"
)
"""A clause that begins with a question word."""
ANAPHORA = re.compile(
    r"\b(that|this|they|them|he|she|him|her|those|those people|(about|of|for|with|on|in|to|do|did|"
    r"handle|find|like|enjoy|take) it)\b"
)
STARTERS = re.compile(
    r"\b(tell me (more|about|everything|what|how)|talk me through|walk me through|say more)\b"
)
"""Requests that do a question's work without its mark."""
ASIDE = re.compile(
    r"\bi.?m (so |really |very |truly )?(sorry|glad|happy for|happy to|delighted|curious|listening|"
    r"excited for|here)\b|\bi (am|was) (so |really )?(sorry|glad|happy)\b|\bi (can|could) (only |"
    r"totally |just |really )?(imagine|see|hear|picture|understand)\b|\bi (hope|see|hear you|"
    r"understand|bet|guess|wonder|d love to hear|would love to hear|remember you)\b|\b(tell|remind) me\b"
    r"|\blet me\b"
)
"""First person that is about the listener."""
FIRST = re.compile(r"\b(i|i.m|i.ve|i.d|i.ll|me|my|mine|myself)\b")
SECOND = re.compile(r"\b(you|you.re|you.ve|you.d|you.ll|your|yours|yourself)\b")
ASKED_BACK = re.compile(
    r"\b(about you|about yourself|and you|do you (ever|have|like)|are you)\b[^?]*\?"
)
