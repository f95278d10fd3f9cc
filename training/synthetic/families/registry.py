"""All procedural families by name."""

from training.synthetic.families.counting import COUNTING_FAMILIES
from training.synthetic.families.dates import DATE_FAMILIES
from training.synthetic.families.formats import FORMAT_FAMILIES
from training.synthetic.families.json_fields import JSON_FAMILIES
from training.synthetic.families.lists import LIST_FAMILIES
from training.synthetic.families.logic import LOGIC_FAMILIES
from training.synthetic.families.lookup import LOOKUP_FAMILIES
from training.synthetic.families.numbers import NUMBER_FAMILIES
from training.synthetic.families.strings import STRING_FAMILIES
from training.synthetic.families.texts.cleaning import CLEANING_FAMILIES
from training.synthetic.families.texts.extraction import EXTRACTION_FAMILIES
from training.synthetic.families.texts.judging import JUDGING_FAMILIES
from training.synthetic.families.texts.rewriting import REWRITING_FAMILIES
from training.synthetic.families.texts.sentences import SENTENCE_FAMILIES
from training.synthetic.families.texts.structures import STRUCTURE_FAMILIES
from training.synthetic.families.texts.sums import SUM_FAMILIES
from training.synthetic.families.units import UNIT_FAMILIES
from training.synthetic.families.word_rules import WORD_RULE_FAMILIES
from training.synthetic.variant import Family

FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        *STRING_FAMILIES,
        *LIST_FAMILIES,
        *NUMBER_FAMILIES,
        *DATE_FAMILIES,
        *UNIT_FAMILIES,
        *FORMAT_FAMILIES,
        *LOOKUP_FAMILIES,
        *COUNTING_FAMILIES,
        *LOGIC_FAMILIES,
        *WORD_RULE_FAMILIES,
        *JSON_FAMILIES,
        *EXTRACTION_FAMILIES,
        *JUDGING_FAMILIES,
        *REWRITING_FAMILIES,
        *SENTENCE_FAMILIES,
        *SUM_FAMILIES,
        *STRUCTURE_FAMILIES,
        *CLEANING_FAMILIES,
    )
}
