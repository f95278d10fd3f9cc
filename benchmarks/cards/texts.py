"""What the model cards say of each kind of generator; the numbers are filled in by model_card.py.

Braces are members of the checkpoint's config.json and what `model_card.numbers` computes.
"""

from dataclasses import dataclass

LIBRARY = """\
    lorasmith library build --tasks TASKS/train --out LIB --exclude-license restricted --rank 2 \\
        --steps 200 --patience 0 --snapshots 20 --slots 33 --shard-size 33 --workers 4 \\
        --device cuda --compile
"""
LIBRARY_TOLD = (
    "LIB holds {library[tasks]} adapters, each trained at rank {rank} for 200 steps on one "
    "task's rows, all from one A (2 minutes on two H200)"
)
PEERS = (
    "The base alone has {alone} bare / prompted, Text-to-LoRA trained by reconstruction on LIB "
    "([report](../../docs/results/text-to-lora-reconstruction-heldout.json)) {reconstruction}, and "
    "Text-to-LoRA as it ships, distilled and trained longer, {shipped}. "
)
SHORT = "The training was short, and one seed of it was trained. "


@dataclass(frozen=True)
class CardText:
    """The words of one kind of generator.

    Attributes:
        title: its name.
        what: what it makes out of what, in a sentence or two.
        needs: what a request has to give, and what has to be at hand.
        trained: how, with the settings that matter, and for how long.
        commands: of its training, indented.
        scores: what to know of the tables.
        limits: where it fails, beside what holds for all.
    """

    title: str
    what: str
    needs: str
    trained: str
    commands: str
    scores: str
    limits: str


TEXTS = {
    "text-to-lora": CardText(
        title="Text-to-LoRA",
        what="A description becomes a LoRA adapter ({layout_told}) in one forward pass. The base "
        "itself reads the description, through its first 18 layers and under the part of a "
        "multi-task adapter that lies there (`encoder/`, docs/base-states.md).",
        needs="A description, and the base's weights, as the base reads it. No library.",
        trained="By distillation (docs/distillation.md): bare, its adapters are to answer as the "
        "multi-task adapter of commit 28ea2d8 does, the one that shipped before the present one, "
        "with the description in its prompt, on real, synthetic and authored tasks, these with "
        "ten rows more, as of that commit. "
        "{training[data][sampling][tasks_per_step]} conditions a step, half of them of "
        "synthetic tasks without end, one in ten of gibberish or another task's description, which "
        "are to change nothing; learning rate {training[optimiser][lr]}; ranks of o_proj and "
        "down_proj copy words of the description; 16 minutes on an H200 beside another job. One "
        "seed was trained.",
        commands="""\
    benchmarks/quality/distil_text_to_lora.sh TASKS OUT
""",
        scores="The second table is of the 32 user-style tasks for reporting, by which nothing was "
        "chosen, the third of the 30 by which this checkpoint was taken.",
        limits="A description far from the training tasks gives an adapter that may not help: "
        "measure it. With the instruction in the prompt `pretrained/multi-task` is far better on "
        "tasks put as users put them.",
    ),
    "sg-lora": CardText(
        title="SG-LoRA",
        what="The {architecture[top_k]} adapters of a library whose descriptions are nearest to "
        "the request become a new one ({layout_told}): a conditional variational autoencoder "
        "over their mean and variance. How it works: docs/sg-lora.md.",
        needs="A description, and a library of rank {rank} on the same modules whose adapters were "
        "trained from the A that LIB's were: `pretrained/library`, which `--library` takes by "
        "default, LIB itself, or one built with the same seed, rank and targets. Any other is "
        "refused, and so is a description whose nearest one has a cosine below "
        "{architecture[floor]}. The base model is not needed. Seed 0 takes the prior's mean, any "
        "other seed a draw.",
        trained=LIBRARY_TOLD + ", and 20 snapshots of each: {library[adapters]:,} "
        "states, of which a step reconstructs {library[per_step]} from adapters of other tasks. "
        "Latent {architecture[latent]}, hidden {architecture[hidden]}, temperature "
        "{architecture[temperature]}, learning rate {training[optimiser][lr]}, weight of the KL "
        "{training[settings][term_weights][kl]}; 6 minutes on an H200 beside other work.",
        commands=LIBRARY
        + """\
    lorasmith train fit --config configs/sg_lora.yaml --data.library LIB
""",
        scores=PEERS
        + "The first table has the shipped sample of 24 adapters as its library, which is what "
        "`lorasmith generators` tells; the second has LIB. `top-k` is the mean ΔW of the nearest "
        "adapters weighted by similarity, without any network. Paired by task, the difference to "
        "it is {differences}: most of the score is the library's. The adapters are of seed 0. "
        "Other descriptions than the task's own were not measured.",
        limits=SHORT + "It fills in between the tasks of its library and follows no "
        "instruction that none of them resembles; `text-to-lora` and `multi-task` score far better "
        "on new tasks.",
    ),
    "icm-lora": CardText(
        title="ICM-LoRA",
        what="The base reads the task, and a decoder of convolutions turns its last state into all "
        "weights of an adapter ({layout_told}). How it works: docs/icm-lora.md.",
        needs="A description, with or without up to five examples, and the base model, which has "
        "to be loaded: it reads the prompt. No library. Each seed is another draw.",
        trained=LIBRARY_TOLD + ", and 20 snapshots of each: {library[adapters]:,} "
        "training states are the targets, with in-context vectors (the base's states, without any "
        "adapter; {library[vectors][draws]} draws). Latent {architecture[latent]}, learning rate "
        "{training[optimiser][lr]}, weight of the KL {training[settings][term_weights][kl]}; "
        "8 minutes on an H200 beside other work.",
        commands=LIBRARY
        + """\
    lorasmith train fit --config configs/icm_lora.yaml --data.library LIB \\
        --data.vectors.tasks '[TASKS/train]' --data.steps 6000 --trainer.max_steps 6000
""",
        scores=PEERS + "One draw (seed 0), without examples. With the instruction in the prompt, "
        "gibberish as the description brings as much ROUGE-L as the task's own, if fewer exact "
        "answers: much of what helps there is not what the adapter was told.",
        limits=SHORT + "It is made to give back the adapters of the tasks that it was "
        "trained on; on new tasks `text-to-lora` and `multi-task` score better.",
    ),
    "lofa": CardText(
        title="LoFA",
        what="The weights that the adapter will change are read, patch by patch, by a transformer "
        "that knows the description, and become A and B of their module ({layout_told}). How it "
        "works: docs/lofa.md.",
        needs="A description, and the base model, which has to be loaded: its weights are read. No "
        "library.",
        trained=LIBRARY_TOLD + ". The first stage (1,500 steps, 2 minutes on an H200) "
        "learns which weights each of them changes; the second ({training[steps]} steps, 6 "
        "minutes) learns to reproduce them and to answer the rows of all {count} tasks through the "
        "frozen base, {training[data][sampling][tasks_per_step]} tasks a step, learning rate "
        "{training[optimiser][lr]}. `config.json` names the first stage's digest; it does not "
        "ship, as what generating needs of it is in this file.",
        commands=LIBRARY
        + """\
    lorasmith train fit --config configs/lofa_stage1.yaml --data.library LIB \\
        --data.steps 1500 --trainer.max_steps 1500
    lorasmith train fit --config configs/lofa_stage2.yaml --data.library LIB \\
        --data.tasks '[TASKS/train,TASKS/train_extra]' \\
        --model.stage1 runs/lofa_stage1/checkpoint --model.rank 2 --model.compile_layers true \\
        --data.steps 900 --trainer.max_steps 900
""",
        scores=PEERS
        + "With the instruction in the prompt, another task's description costs it less "
        "than without: part of what helps there is not what the adapter was told.",
        limits=SHORT + "It has seen the weights of one base: for another of the same shapes "
        "nothing was measured.",
    ),
}
