# ruff: noqa: E501 (tables of wording)
"""What a simulated listener says, by what they react to. Templates of `phrases`."""

from __future__ import annotations

HELLO = (
    "[Hi|Hello|Hey], [I'm fine|not bad|I'm alright|doing okay], thanks.",
    "[Hi|Hello|Hey there], [nice to meet you|good to talk to someone].",
    "[Hi|Hey]. [A bit tired|Just had lunch|Just got home], but fine.",
    "Oh hello. [It's been a long day|It's raining here|I have a free hour].",
    "[Hey|Hi], [pretty good|so-so|can't complain], how does this work?",
    "Good [morning|evening|afternoon]. [I'm on my sofa|I just sat down|I made tea].",
)
ANSWER = (
    "[Well|So|Okay so|Let me think]",
    "[Honestly|To be honest|Actually]",
    "[Hm|Mm|Ah], [well|so]",
    "[Thanks for asking|Nice that you ask|Glad you ask]",
    "It's like this",
    "[You know|The thing is]",
    "[Funny you ask|Since you ask]",
    "[Where do I start|Long story], so",
    "[Right|Yes], so",
    "[Oh|Ooh], [well|there's a lot to say]",
    "[For one thing|For a start]",
    "[Let's see|How do I put it]",
    "[Mostly|In short]",
)
AGREE = (
    "[Exactly|Yes, exactly|That's it].",
    "[Thanks|Thank you], [that helps|that means a lot].",
    "[Yeah|Yes], [you get it|that's how it feels].",
    "[True|So true|Right].",
    "[Thank you|Thanks] for [saying that|listening].",
    "[I know, right|Isn't it]?",
    "[Yes|Yeah], it [really is|truly is].",
    "[That's kind|Kind of you to say].",
)
NEUTRAL = (
    "[Yeah|Yes|Mhm].",
    "[Okay|Right|Alright].",
    "[I guess|I suppose|Maybe].",
    "[Hm|Mm].",
    "[Sure|Could be|Possibly].",
    "[Ah|Oh], [okay|I see].",
    "[Anyway|Well].",
)
COLD = (
    "[Okay|Right|Fine].",
    "[Oh|Ah]. [Okay|Alright] then.",
    "[If you say so|I guess].",
    "Hm.",
    "[Never mind|Forget it] then.",
    "[Well|So]... yeah.",
    "[Not much to say|That's all] then.",
    "[I was only saying|I just wanted to say it].",
    "[Yeah|Yep].",
    "[Whatever you think|As you like].",
)
THANKS = (
    "[Oh|Aw|Ha], [thank you|thanks|that's kind].",
    "[You're making me blush|That's nice of you].",
    "[Thanks|Thank you], [I try|not really though].",
    "[Oh|Well], [stop it|go on then].",
)
THANKS_AGAIN = (
    "[Uh|Um|Er], thanks [again|I suppose].",
    "[You keep saying that|You said something like it].",
    "[Okay|Right], [that's a lot|that's enough now].",
    "[You don't even know me|If you say so].",
    "[Ha|Heh], [sure|okay].",
    "[Thanks|Right]. [Anyway|So].",
)
LAUGH = (
    "[Ha|Haha|Heh], [good one|okay|I needed that].",
    "[Haha|Ha], [where did you get that|silly].",
    "[Oh no|Groan], [that was terrible|that's an old one].",
    "[Ha|Heh]. [Anyway|So].",
)
CORRECT = (
    "[Well|Hm|Er], [it's not like that|that's not what I meant|you got that the wrong way round].",
    "[No|Actually], it's [the other way round|not how it is].",
    "[Did you hear|Were you listening to] me?",
    "[Okay|Hm], [odd reaction|that's a strange thing to say].",
    "I think you misheard me.",
)
AGAIN = (
    "You [said|told me] that [already|before|a moment ago].",
    "[Again|Once more]?",
    "[We've been here|That's the same as before].",
    "[Hm|Er], you're repeating yourself.",
)
ABOUT_YOU = (
    "[Oh|Ah], [I see|right|okay].",
    "[Good for you|Sounds like your day was full].",
    "[Mhm|Okay]. [Anyway|Well then].",
    "[Right|Well], [that's you|lucky you].",
)
MACHINE = (
    "[Okay|Right], [I just wanted to chat|I wasn't asking for help].",
    "[That sounds|You sound] like a manual.",
    "[Never mind|Forget I said it].",
    "[Um|Er], okay.",
    "I [know|see]. [I only wanted to talk|Anyway].",
)
FEELING = {
    1: (
        "I [can't stop smiling|was over the moon|still feel good about it].",
        "It [made my whole day|was the best part of the week|feels wonderful].",
        "[Such|That was such] a [happy|lovely|sweet] moment.", "I [really|so] enjoyed it.",
        "[Honestly|You know], I'm [happy|proud|delighted].", "[Everybody|We all] [smiled|laughed].",
        "I [needed|deserved] some luck, it felt [great|perfect].",
    ),
    -1: (
        "I'm [quite|really|pretty] [sad|upset|worried|stressed] about it.",
        "It's [been on my mind|hard to sleep|exhausting], honestly.",
        "[Such|What] a [mess|pain|nightmare].", "I [could have cried|just felt awful].",
        "[Sorry|I know], I [keep complaining|sound grumpy].", "I feel [alone|useless|sick] with it.",
        "It's [so|just] [unfair|frustrating].",
    ),
    0: (
        "It [takes|fills] [most of my evenings|an hour a day|my weekends].", "[Nothing special|It's a habit by now].",
        "I've done it [for years|on and off].", "It [keeps me busy|passes the time].",
        "[My neighbours|Some people] find that odd.", "You [get used to it|learn as you go].",
        "[Small steps|Bit by bit].", "It [costs|needs] less than you'd expect.",
    ),
}  # fmt: skip
TURN_TO = (
    "[By the way|Oh, by the way]", "[Something else|On another note]", "[Oh, and|And also]",
    "[Did I mention|Have I told you], [so|well]", "[What else|Other news]", "[Anyway|Otherwise]",
)  # fmt: skip
AND_YOU = (
    "[What|How] about you?", "And you, how are you [today|doing]?", "Do you [ever have|have] days like that?",
    "Have you ever been through something like that? And you?", "What about yourself?",
)  # fmt: skip
