"""Short word lists for what grammar alone cannot decide about motion words (motion_words.py). Verbs are in their base form."""

# Verbs that name nothing that visibly moves, by reason.
NOT_MOTION = frozenset((
    "be have do get make take give keep let use try start begin stop continue seem become remain "  # helpers
    "stand sit lie lay sleep rest lean kneel crouch hang wait stay live pose perch recline relax "  # postures
    "wear hold carry contain include belong own hide grip wield "  # having
    "look watch stare gaze glance see hear smell feel listen observe view face read study think dream know love like want need "
    "hope mean "  # senses and thoughts
    "smile frown grin pout blush glow shine gleam glitter shimmer glisten light illuminate reflect "  # expressions and lights
    "show depict portray represent feature describe display say resemble exist consist surround cover frame tower overlook decorate span extend "
    "border line connect "  # relations
    "trend render focus detail flower color colour park dress"  # words about pictures, and verbs made of nouns
).split())
# Their passive tells a movement: "a boat pushed by the wind", "a leaf blown along the street".
MOVED = frozenset("push pull drag tow throw toss hurl fling blow sweep chase kick swing shake spin stir lift carry drive whip roll bounce".split())
# Things and texts that are named after how they were made or what they do, and actions that are named as such.
NAMED_ING = frozenset((
    "painting drawing sketching rendering engraving etching carving building dwelling housing wedding setting landing feeling meaning being "
    "crossing opening clearing ending beginning railing wiring writing lettering lining coating stuffing covering binding heading dressing "
    "filling topping seasoning icing frosting pudding stocking hiking camping surroundings lodging offering gathering meeting"
).split())
# Before a noun these say what it is for, unless it is a creature ("a fishing rod", "a dining room", but "a fishing man").
PURPOSE = frozenset((
    "fishing rowing sewing knitting washing ironing parking dining living dressing baking frying drawing painting writing shopping hunting "
    "training bowling boxing building packing mining farming camping hiking skiing diving racing measuring "
    "tracking establishing"
).split())
# Things made for an activity: with an -ing form before them it names their use ("running shoe", "swimming pool", "jumping rope").
FOR_USE = frozenset((
    "shoe boot glove suit costume trunk cap helmet gear kit equipment board stick rod pole rope bag case pan pot knife tool machine device table "
    "chair stool bench bed bath room hall house studio school lesson class club shop store mall ground floor lot lane track trail path route road "
    "field court ring pool hole pin ball bat game list glass card order permit license stance pose shot angle position style sequence"
).split())
# What moves by itself: before it even an -ing form that the tagger takes for a noun tells a movement ("a dancing couple", "a sailing boat").
CREATURES = frozenset((
    "man woman boy girl child kid baby person people human couple crowd group dancer figure soldier knight robot lady guy friend player athlete "
    "animal dog puppy cat kitten horse pony bird fish bear wolf fox lion tiger elephant monkey rabbit deer cow sheep dragon creature monster men women children"
).split())
MOVERS = CREATURES | frozenset((
    "boat ship yacht car train plane airplane truck bus rocket water wave river stream sea rain snow snowflake leaf leaves petal cloud smoke steam mist fog "
    "dust sand wind fire flame spark star light ball stone rock feather ribbon flag hair skirt"
).split())
CAMERA = frozenset("camera shot view lens".split())
