"""Templates of descriptions by register. Data only; training.synthetic.wordings fills them.

Slots: <goal> and <Goal>, what to do, in lower case and capitalised; <inline> or <block>, the
answers and what they stand for, or <json>, the same as JSON, or <words> or <list>, the answers
alone, with <explained>, lines that say what they stand for; <rules>, <lazy>, <bare> or <bullets>,
further rules and the form of the answer, as sentences, in lower case with full stops or commas, or
as a list; <thing> and <things>, what an input is; <examples>; <text>, the description of a task
that is changed. A slot with an exclamation mark is a JSON string.
"""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "formal": (
        "Your task is to <goal>. The possible answers are: <inline>. <rules>",
        "In this task, you are given a <thing>. <Goal>. The answers are as follows.\n<block>\n"
        "<rules>",
        "Given a <thing>, <goal>. Choose from the following answers: <inline>. <rules>",
        "You will be given one <thing> at a time. <Goal>. Permitted answers: <inline>. <rules>",
        "The input is a <thing>. The output is one of the following: <inline>. <Goal>. <rules>",
        "For each <thing>, <goal> according to this scheme:\n\n<block>\n\n<rules>",
        "Read the <thing> carefully and <goal>. Valid outputs are <inline>. <rules>",
    ),
    "everyday": (
        "These are <things> that we get every day. <Goal>: <inline>. <rules>",
        "I have a pile of <things>. For each one, <goal>. The answers to choose from: "
        "<inline>. <rules>",
        "We need to <goal>. It's one of these: <inline>. <rules>",
        "Here's one of our <things>. <Goal>. We use <inline>. <rules>",
        "<Goal>. You can pick from <inline>. <rules>",
        "What I need: <goal>. The options are\n<block>\n<rules>",
        "Help me with my <things>: <goal>. I use these answers: <inline>. <rules>",
    ),
    "terse": (
        "<Goal>: <inline>. <rules>",
        "<inline>. <Goal>. <rules>",
        "<Goal>.\n<block>\n<rules>",
        "Input: <thing>. Output: <inline>. Task: <goal>. <rules>",
        "<Goal> | <inline> | <lazy>",
        "TASK <goal>\nANSWERS <inline>\nRULES <lazy>",
    ),
    "lazy": (
        "<goal>, <inline>. <lazy>",
        "ok so <goal>. its one of <inline>. <lazy> thx",
        "hey can u <goal>? <inline>. <lazy>",
        "need this for a bunch of <things>: <goal>. answers <inline>. <lazy>",
        "<goal>\n<block>\n<lazy>",
        "just <goal> pls. u can say <inline>. <lazy>",
        "<things> come in, u <goal>, thats it. <inline>... <lazy>",
    ),
    "polite": (
        "Could you please <goal>? The possible answers are <inline>. <rules> Thank you!",
        "Please <goal>. We would like you to use <inline>. <rules> Many thanks.",
        "Would you be so kind as to <goal>? Kindly choose from the following:\n<block>\n<rules>",
        "I'd be grateful if you could <goal>. Our answers are <inline>. <rules>",
        "Hello! I'd like you to <goal>. You may choose from <inline>. <rules> Thanks a lot!",
        "Kindly <goal>, and use only these answers: <inline>. <rules>",
    ),
    "bulleted": (
        "<Goal>.\n\nAnswers:\n<block>\n\nRules:\n<bullets>",
        "What to do:\n- <goal>\n<bullets>\n\nWhat to answer:\n<block>",
        "Input: one <thing>\nJob: <goal>\n\nOptions\n<block>\n\nNotes\n<bullets>",
        "Instructions\n- <goal>\n- choose from: <inline>\n<bullets>",
        "Here is how to handle the <things>:\n<bullets>\n\nThe goal is to <goal>:\n<block>",
        "Labels\n<block>\n\nTo do\n- <goal>\n<bullets>",
    ),
    "json": (
        '{"task": <goal!>, "answers": <json>, "rules": <lazy!>}',
        '{\n  "input": <thing!>,\n  "instruction": <goal!>,\n  "output": <json>,\n  "notes": '
        "<lazy!>\n}",
        "instruction: <goal>\ninput: <thing>\nrules: <lazy>\nlabels: <json>",
        "role: classifier\ngoal: <goal>\nallowed: <json>\nconstraints: <lazy>",
        "<Goal>. Allowed values: <json>. <rules>",
        "[task]\ninput = <thing!>\ngoal = <goal!>\nanswers = <json>\nrules = <lazy!>",
    ),
    "page": (
        "---\nname: answer-<things>\ndescription: <Goal>.\n---\n\n# Answers\n\n<block>\n\n# "
        "Rules\n\n<bullets>\n\n# Examples\n\n<examples>",
        "# How to treat <things>\n\n<Goal>.\n\n## Answers\n<block>\n\n## Rules\n<rules>\n\n## "
        "Examples\n<examples>",
        "## Purpose\n<Goal>.\n\n## Labels\n<block>\n\n## Form\n<bullets>\n\n## For instance\n"
        "<examples>",
        "<Goal>. Answers: <inline>. <rules>\n\nExamples:\n<examples>",
        "SKILL: <goal>\n\nWhen to use: whenever a <thing> comes in.\n\nChoose from\n<block>\n\n"
        "<rules>\n\n<examples>",
        "**Task**: <goal>\n\n**Answers**\n<block>\n\n**Notes**: <rules>\n\n**Samples**\n<examples>",
    ),
    "engineer": (
        "<goal>. labels: <words>\n<explained>\n<bare>",
        "<goal> (<words>), <bare>\n<explained>",
        "<goal>: <words>\n\n<explained>\n\n<bare>",
        "labels: <words>\n<explained>\n<goal>, <bare>",
        "<thing> -> <words>\n<explained>\n<goal>, <bare>",
        "one of <words>\n<goal>\n<explained>\n<bare>",
        "<goal>\n<explained>\noutput: <words>\n<bare>",
        "classify\nin: <thing>\nout: <words>\n<explained>\n<goal>, <bare>",
        "system prompt: <goal>, valid outputs <words>, <bare>\n<explained>",
        "<words>? <goal>, <bare>\n<explained>",
        "for every <thing> <goal>, options <words>, <bare>\n\n<explained>",
        "<words>\n\n<explained>\n\n<goal>, <bare>",
    ),
    "schema": (
        '{"type": "string", "enum": <list>, "description": <goal!>}\n<explained>\n<bare>',
        '{"input": <thing!>, "task": <goal!>, "one_of": <list>, "definitions": <explained!>, '
        '"rules": <bare!>}',
        'def label(<thing>: str) -> str:\n    """<Goal>.\n\n    Returns one of <list>.\n    '
        '<bare>\n    """\n\n<explained>',
        "returns: string, one of <list>\ndoes: <goal>\n<explained>\nremarks: <bare>",
        "POST /label\nbody: one <thing>\nresponse: <words>\n\n<explained>\n\n<goal>, <bare>",
        "name: <things>\nprompt: <goal>\nchoices: <list>\nnotes: <bare>\n<explained>",
        "enum Answer { <words> }\n// <goal>, <bare>\n<explained>",
        "Literal<list>\n\n# <goal>\n# <bare>\n<explained>",
    ),
    "question": (
        "Can you <goal>? Is it <inline>? <rules>",
        "Which answer is right if you have to <goal>: <inline>? <rules>",
        "How would you <goal>? Your choices: <inline>. <rules>",
        "What would you say when asked to <goal>? The choices are\n<block>\n<rules>",
        "<inline>: which one is it? <Goal>. <rules>",
        "Are you able to <goal>, using nothing but <inline>? <rules>",
    ),
    "role": (
        "You are an experienced clerk who has to <goal>. You know these answers: <inline>. <rules>",
        "You are a careful assistant. You <goal>. You may answer <inline>. <rules>",
        "Act as a classifier of <things>. <Goal>. Classes:\n<block>\n<rules>",
        "You are the first to see our <things>. <Goal>. You have these answers: <inline>. <rules>",
        "Imagine you work at our desk and have to <goal>. You have the choice of <inline>. <rules>",
        "You're a bot in our chat that reads every <thing>. <Goal>: <inline>. <rules>",
    ),
    "office": (
        "Dear colleagues, for the incoming <things> it is needed to <goal>. There are the "
        "following possibilities: <inline>. <rules> Best greetings",
        "Hello together, please <goal>. We differentiate between <inline>. <rules> Thanks in "
        "advance.",
        "As discussed in our meeting, we want to <goal>. In question come:\n<block>\n<rules> "
        "With kind regards",
        "For your information: from today on we <goal>, and these answers are to be used: "
        "<inline>. <rules> By questions please contact me.",
        "Please be so good and <goal>. To select are <inline>. <rules>",
        "In the frame of our process, every <thing> has to be checked. <Goal>. Possible are "
        "<inline>. <rules>",
    ),
    "spoken": (
        "So what we do here is this: we <goal>, and then it's <inline>. <rules>",
        "Right, next job. <Goal>. You've got <inline>. <rules>",
        "Imagine a <thing> lands on your desk. <Goal>. That means <inline>. <rules>",
        "It's simple, really: <goal>, and say <inline>. <rules>",
        "My boss wants me to <goal>. He gave me these answers: <inline>. <rules>",
        "Quick one: <goal>. Go for <inline>. <rules>",
    ),
}

# A task with further rules.
CHANGED: tuple[str, ...] = (
    "<text> <rules>",
    "<text>\n\n<rules>",
    "<text>\n<rules>",
    "<text>\n\nRules:\n<bullets>",
    "<text>\n<bullets>",
    "<text>\n\nAdditional instructions\n<bullets>",
    "<text> <lazy>",
    "<text>\n<lazy>",
    "<text> oh and <lazy> thx",
    "<text>\n\nbtw <lazy>",
    "<text> One more thing: <lazy>.",
    "<text> Beyond that: <lazy>. Thank you!",
    "<text> Please mind what is special here: <lazy>.",
    "<text>\n\nNote: <lazy>.",
    "<text> (<bare>)",
    "<text> | <bare>",
    "<text>\n+ <bare>",
    "<text>\noutput: <bare>",
    "Do this: <text> Then: <lazy>.",
    "First the usual task: <text>\nThen, before you answer: <lazy>.",
    "Step 1. <text>\nStep 2. <rules>",
    "A rule that goes before all others: <lazy>. The task: <text>",
    "Before anything else: <lazy>.\n\n<text>",
    "<rules> That said, here is the task. <text>",
    "Note\n<bullets>\n\nTask\n<text>",
    "You know this task: <text> We do it differently now: <lazy>.",
    "<text>\n\nWhere the following rules differ from this, they count:\n<bullets>",
    "Could you do the following for me? <text> But please: <lazy>. Many thanks!",
    '{"task": <text!>, "rules": <lazy!>}',
    '{\n  "instruction": <text!>,\n  "output": <lazy!>\n}',
    "task: <text>\nconstraints: <lazy>",
    "[prompt]\n<text>\n\n[answer]\n<lazy>",
    "# Task\n\n<text>\n\n# Answer\n\n<bullets>",
    "---\ndescription: <text>\n---\n\n## Rules\n<bullets>",
    "**Instruction**: <text>\n\n**Format**: <rules>",
    "My colleague described it like this: <text> I want it a little different: <lazy>.",
    "Dear team, from today on the following holds: <rules> The rest stays as it was: <text>",
)
# A task done backwards.
TURNED: tuple[str, ...] = (
    "This is a task done backwards. You are given the answer, and have to write the input that it "
    "belongs to. The task itself reads: <text>",
    'Somebody was told: "<text>" You see what they answered. Write what they were given.',
    "<text>\n\nNow the other way round: the text you get is the output of this task, and you write "
    "the input.",
    "Undo this: <text> You are given a result and write what it was made from.",
    "Reverse the direction of this task: <text> The input you see is an answer; reply with what it "
    "answers.",
    "turn this around, i give you the output and you give me the input: <text>",
    '{"task": <text!>, "direction": "backwards", "given": "output", "wanted": "input"}',
    "# Inverse task\n\n- given: an output of the task below\n- wanted: its input\n\n<text>",
    "Could you please guess the input from the output? The task was this one: <text> Thank you!",
    "output -> input, not input -> output, for: <text>",
)
