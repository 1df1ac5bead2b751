"""Word lists, most frequent first, and names made of syllables."""

from __future__ import annotations

import itertools


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


NOUNS = _listed(
    """
    time way year work day part place world case point group problem fact hand number side story word home room
    house family area line book name life end house water city state company system program question government
    night mother child student country school service friend father power hour game member law car community
    president team minute idea body information back parent face level office door health person art war history
    party result change morning reason research girl boy moment teacher force education foot age policy music
    market sense nation plan college interest death experience effect use class control field development role
    effort rate heart drug show leader light voice wife police mind price decision son view relationship town road
    arm difference value building action season society tax director position player record paper space ground form
    event official matter center couple site project activity star table need court oil situation cost industry
    figure street image phone data picture practice piece land product doctor wall patient worker news test movie
    north love step bridge river valley engine battery handle cover leather kitchen winter summer garden mountain
    village kingdom castle theatre province harbour railway treaty empire dynasty church cathedral island coast
    desert forest bishop monarch parliament army regiment battle siege revolt reform election mayor senate charter
    factory mill mine canal port trade grain cotton copper silver timber species genus habitat climate rainfall
    temperature sediment mineral crystal molecule protein enzyme bacterium virus antibody vaccine symptom therapy
    surgeon clinic theorem equation variable sample regression distribution likelihood estimate hypothesis variance
    correlation matrix vector function sequence algorithm network protocol compiler signal circuit antenna orbit
    satellite rocket telescope galaxy planet comet eclipse spectrum
    """
)
VERBS = _listed(
    """
    make take find give tell work call try ask need feel become leave put mean keep begin help show hear play run
    move live believe bring happen write provide sit stand lose pay meet include continue set learn change lead
    understand watch follow stop create speak read allow add spend grow open walk win offer remember love consider
    appear buy wait serve die send expect build stay fall cut reach kill remain suggest raise pass sell require
    report decide pull return explain hope develop carry break receive agree support hit produce eat cover catch
    draw choose cause point listen realize place close involve increase govern restore publish invade conquer
    inherit abolish finance construct occupy surrender negotiate sponsor estimate measure compute compare converge
    sample transmit
    """
)
PAST = _listed(
    """
    made took found gave told worked called tried asked needed felt became left put kept began helped showed heard
    played ran moved lived believed brought wrote provided stood lost paid met included continued learned changed
    led understood watched followed stopped created read allowed added spent grew opened walked won offered
    remembered loved considered bought served sent expected built reached suggested raised passed sold required
    reported decided pulled returned explained developed carried broke received supported hit produced covered
    caught drew chose caused involved increased governed restored published invaded conquered inherited abolished
    financed constructed occupied negotiated sponsored estimated measured compared transmitted defended dissolved
    acquired renamed recorded released directed produced photographed translated commissioned dedicated expanded
    demolished excavated catalogued
    """
)
ADJECTIVES = _listed(
    """
    good new first last long great little own other old right big high different small large next early young
    important few public bad same able late hard major better strong possible whole free military true federal
    international full special easy clear recent certain personal open red difficult available likely short single
    medical current wrong private past foreign fine common poor natural significant similar hot dead central happy
    serious ready simple left physical general environmental financial blue democratic dark various entire close
    legal religious cold final main green nice huge popular traditional cultural wooden northern southern eastern
    western medieval imperial colonial coastal agricultural industrial annual regional linear random normal
    discrete bright sturdy flimsy comfortable lightweight adjustable tender gripping uneven charming forgettable
    ambitious tedious witty bleak lavish restrained earnest clumsy hollow vivid sentimental stylish predictable
    haunting
    """
)
ADVERBS = _listed(
    """
    also just still even never really most often always almost perhaps soon quite once already ever finally
    certainly rather later together simply especially quickly nearly usually actually clearly probably largely
    slowly carefully eventually formally briefly gradually widely partly
    """
)
DETERMINERS = _listed(
    """
    the a the this its the his their some every another her that no
    """
)
PLURAL_DETERMINERS = ("the", "its", "the", "these", "their", "some", "his", "many", "most", "all", "few", "no")
PREPOSITIONS = _listed(
    """
    of in to for with on at from by about into over after between through during under against without within
    across behind near since until among despite beyond toward
    """
)
CONNECTIVES = _listed(
    """
    and but because while although when so where before if which
    """
)
PRONOUNS = _listed(
    """
    it he they she we you I one who
    """
)
AUXILIARIES = ("is", "was", "has been", "would be", "were", "can be", "will be", "could be", "had been", "seems")
YEARS = tuple(str(year) for year in (*range(2019, 1890, -3), *range(2018, 1700, -7)))

_FIRST = _listed(
    """
    James Mary John Linda Robert Susan David Karen Paul Nancy Mark Laura Peter Helen George Ruth Frank Anna Henry
    Alice Jack Rose Walter Clara Arthur Emma Carl Irene Louis Martha Victor Julia Oscar Stella Hugo Nina
    """
)
_ONSETS = _listed(
    """
    Bar Bel Cal Car Dal Dor El Fen Gar Hal Har Ken Kir Lan Mar Mor Nor Or Pel Ran Ros Sal Sher Tal Tor Ven Wal Win
    """
)
_CODAS = _listed(
    """
    ton well ford ley by son den man wick low more ner ling court ham vale ster dale ridge worth mont field
    """
)

PLACES = tuple(onset + coda for onset, coda in itertools.product(_ONSETS, _CODAS))
PEOPLE = tuple(f"{_FIRST[(7 * number) % len(_FIRST)]} {place}" for number, place in enumerate(reversed(PLACES)))
