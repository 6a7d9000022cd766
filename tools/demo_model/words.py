"""The small vocabulary of the demo model's tasks: its shapes, colours and places in English and Chinese.

Standard library only: the judge, and so the evaluator, reads it on machines that have nothing else.
Keys (such as "circle", "top left") are what truths and JSON answers use; names are what questions and
answers say; synonyms are what else a person may write and is understood by the judge.
"""

LANGUAGES = ("en", "zh")

SHAPES = ("circle", "square", "triangle", "rectangle", "star", "diamond", "cross", "ring", "heart")

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white", "gray")

# key -> (English name, English plural, Chinese name)
SHAPE_NAMES = {
    "circle": ("circle", "circles", "圆形"),
    "square": ("square", "squares", "正方形"),
    "triangle": ("triangle", "triangles", "三角形"),
    "rectangle": ("rectangle", "rectangles", "长方形"),
    "star": ("star", "stars", "星形"),
    "diamond": ("diamond", "diamonds", "菱形"),
    "cross": ("cross", "crosses", "十字形"),
    "ring": ("ring", "rings", "圆环"),
    "heart": ("heart", "hearts", "心形"),
}

COLOR_NAMES = {
    "red": ("red", "红色"),
    "orange": ("orange", "橙色"),
    "yellow": ("yellow", "黄色"),
    "green": ("green", "绿色"),
    "blue": ("blue", "蓝色"),
    "purple": ("purple", "紫色"),
    "pink": ("pink", "粉色"),
    "black": ("black", "黑色"),
    "white": ("white", "白色"),
    "gray": ("gray", "灰色"),
}

# Places of a picture divided in three by three.
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
PLACE_NAMES = {
    "top left": ("At the top left.", "在左上角。"),
    "top": ("At the top.", "在上方。"),
    "top right": ("At the top right.", "在右上角。"),
    "left": ("On the left.", "在左边。"),
    "center": ("In the center.", "在中间。"),
    "right": ("On the right.", "在右边。"),
    "bottom left": ("At the bottom left.", "在左下角。"),
    "bottom": ("At the bottom.", "在下方。"),
    "bottom right": ("At the bottom right.", "在右下角。"),
}

RELATIONS = ("left", "right", "above", "below")
RELATION_NAMES = {
    "left": ("To the left.", "在左边。"),
    "right": ("To the right.", "在右边。"),
    "above": ("Above.", "在上面。"),
    "below": ("Below.", "在下面。"),
}

# Ways in which something moves or is moved.
DIRECTIONS = ("left", "right", "up", "down")
DIRECTION_NAMES = {
    "left": ("Left.", "向左。"),
    "right": ("Right.", "向右。"),
    "up": ("Up.", "向上。"),
    "down": ("Down.", "向下。"),
}

TRENDS = ("rising", "falling", "mixed")
TREND_NAMES = {
    "rising": ("Rising.", "上升。"),
    "falling": ("Falling.", "下降。"),
    "mixed": ("Up and down.", "有升有降。"),
}

NO_PICTURE = ("I see no picture. Please send one.", "我没有看到图片。请发送一张图片。")

YES = ("Yes.", "是的。")
NO = ("No.", "不是。")

# What else is read as a shape or a colour. Longer spellings win over shorter ones that they contain.
SHAPE_SYNONYMS = {
    "circle": ("circle", "circles", "disc", "disk", "dot", "圆形", "圆圈", "圆"),
    "square": ("square", "squares", "正方形", "方块", "方形"),
    "triangle": ("triangle", "triangles", "三角形", "三角"),
    "rectangle": ("rectangle", "rectangles", "长方形", "矩形"),
    "star": ("star", "stars", "星形", "五角星", "星星"),
    "diamond": ("diamond", "diamonds", "rhombus", "菱形"),
    "cross": ("cross", "crosses", "plus", "plus sign", "十字形", "十字", "十字架", "加号"),
    "ring": ("ring", "rings", "donut", "doughnut", "圆环", "环形", "环"),
    "heart": ("heart", "hearts", "心形", "爱心", "桃心"),
}

COLOR_SYNONYMS = {
    "red": ("red", "红色", "红"),
    "orange": ("orange", "橙色", "橙", "橘色", "橘黄色"),
    "yellow": ("yellow", "黄色", "黄"),
    "green": ("green", "绿色", "绿"),
    "blue": ("blue", "蓝色", "蓝"),
    "purple": ("purple", "violet", "紫色", "紫"),
    "pink": ("pink", "粉色", "粉红色", "粉"),
    "black": ("black", "黑色", "黑"),
    "white": ("white", "白色", "白"),
    "gray": ("gray", "grey", "灰色", "灰"),
}
