#!/usr/bin/env python3
"""Tests of tools/demo_model: `judge` (Python alone) or `pictures` (Pillow, numpy and fonts; exit 77 without).

    tests/tools/demo_model_test.py judge|pictures [unittest arguments]
"""

import collections
import json
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/demo_model"))

import judge  # noqa: E402
import words  # noqa: E402

EVAL = ROOT / "models/demo/eval"
SKIPPED = 77


def right(truth, answer):
    return judge.is_right("any", truth, answer)


class JudgeTest(unittest.TestCase):
    def expect(self, truth, good, bad):
        for answer in good:
            self.assertTrue(right(truth, answer), f"{answer!r} should be right for {truth}")
        for answer in bad:
            self.assertFalse(right(truth, answer), f"{answer!r} should be wrong for {truth}")

    def test_a_colour_is_said_in_any_words_but_alone(self):
        self.expect({"kind": "color", "color": "gray"}, ["Gray.", "it is grey", "灰色。", "灰"],
                    ["Red.", "gray or red", "", "   ", "grayish", "粉红色"])
        self.expect({"kind": "color", "color": "pink"}, ["粉红色。", "Pink"], ["红色。", "red"])
        self.expect({"kind": "color", "color": "red"}, ["红色"], ["粉红色", "infrared"])

    def test_a_shape_may_have_other_names_but_not_another_shape(self):
        self.expect({"kind": "shape", "shape": "circle"},
                    ["A circle.", "圆形。", "an orange disc", "It is a CIRCLE"],
                    ["A ring.", "圆环。", "a semicircle", "a circle and a square"])
        self.expect({"kind": "shape", "shape": "ring"}, ["圆环。"], ["圆形。"])

    def test_an_object_needs_its_colour_and_its_shape(self):
        self.expect(
            {"kind": "object", "shape": "star", "color": "blue"}, ["The blue star.", "蓝色星形。"],
            ["The star.", "Blue.", "The red star.", "The blue heart.", "the blue star or the red star"])

    def test_yes_is_not_no(self):
        self.expect({"kind": "yes_no", "yes": True}, ["Yes.", "yes, it is", "是的。", "有。"],
                    ["No.", "不是。", "没有。", "Yes and no", "maybe"])
        self.expect({"kind": "yes_no", "yes": False}, ["No.", "no, there is none", "不是。", "没有。"],
                    ["Yes.", "有。"])

    def test_a_number_is_read_in_digits_and_words_of_both_languages(self):
        self.expect({"kind": "number", "number": 2}, ["2", "There are 2.", "two", "两个。", "二"],
                    ["3", "2 or 3", "12", "2.5", "-2", "十二"])
        self.expect({"kind": "number", "number": 12}, ["12", "twelve", "十二"], ["2", "1 2", "二十"])
        self.expect({"kind": "number", "number": 20}, ["20", "二十"], ["十二"])

    def test_a_place_is_all_of_its_sides(self):
        self.expect({"kind": "place", "place": "top left"},
                    ["At the top left.", "upper left corner", "在左上角。"],
                    ["At the top.", "On the left.", "top right", "the top, left and right"])
        self.expect({"kind": "place", "place": "center"}, ["In the center.", "the middle", "在中间。"],
                    ["left", "top"])
        self.expect({"kind": "place", "place": "left"}, ["On the left.", "center left", "在左边。"],
                    ["bottom left"])

    def test_a_relation_is_one_side(self):
        self.expect({"kind": "relation", "relation": "above"}, ["Above.", "It is over it", "在上面。"],
                    ["Below.", "above left", "在下面。"])
        self.expect({"kind": "relation", "relation": "right"}, ["To the right."], ["To the left."])

    def test_a_box_is_right_above_the_least_overlap_and_is_json(self):
        truth = {"kind": "box", "box": [100, 100, 200, 200], "shape": "star", "color": "red"}
        box = '{"bbox_2d": %s, "label": "red star"}'
        self.expect(truth, [
            box % "[100, 100, 200, 200]", box % "[100, 100, 200, 171]",
            "[" + box % "[100, 100, 200, 200]" + "]", "```json\n" + box % "[100, 100, 200, 200]" + "\n```"
        ], [
            box % "[100, 100, 200, 170]", box % "[200, 200, 100, 100]", box % "[100, 100, 200]",
            box % '[100, 100, 200, "200"]', box % "[true, 100, 200, 200]", box % "null", "[]", "null",
            '{"bbox_2d": [100, 100, 200, 200]}', '{"bbox_2d": [100, 100, 200, 200], "label": "blue star"}',
            "100, 100, 200, 200", "[" * 3000
        ])

    def test_printed_text_forgives_case_and_twins_and_nothing_else(self):
        self.expect({"kind": "text", "text": "A0I7"},
                    ["A0I7", "a0i7", "AO17", 'The text "A0I7".', "文字“A0I7”。", "A0 I7"],
                    ["A0I8", "A0I", "A0I77", "It says A0I7"])

    def test_a_label_is_the_only_one_named(self):
        truth = {"kind": "label", "label": "A", "labels": ["A", "B"]}
        self.expect(truth, ["A", "Bar A.", "A是最高的"], ["B", "A or B", "a bar", "AB", "C"])

    def test_a_trend_has_three_ways(self):
        self.expect({"kind": "trend", "trend": "rising"}, ["Rising.", "it goes up", "上升。"],
                    ["Falling.", "Up and down."])
        self.expect({"kind": "trend", "trend": "mixed"}, ["Up and down.", "有升有降。", "mixed"], ["上升。", "下降。"])

    def test_a_picture_is_named_by_its_number(self):
        self.expect({"kind": "picture", "picture": 2},
                    ["Picture 2.", "the second picture", "第2张。", "第二张。", "2"],
                    ["Picture 1.", "picture 1 or 2", "第一张。"])

    def test_a_change_is_told_from_its_reverse(self):
        self.expect(
            {"kind": "change", "change": "recolored", "shape": "ring", "color": "red", "to": "blue"},
            ["The ring changed from red to blue.", "圆环从红色变成了蓝色。"],
            ["The ring changed from blue to red.", "The ring is blue.", "The star changed from red to blue."])
        self.expect({"kind": "change", "change": "added", "shape": "ring", "color": "red"},
                    ["A red ring was added.", "多了一个红色圆环。"],
                    ["The red ring was removed.", "A blue ring was added.", "少了一个红色圆环。"])
        self.expect({"kind": "change", "change": "moved", "shape": "ring", "color": "red", "direction": "up"},
                    ["The red ring moved up.", "红色圆环向上移动了。"],
                    ["The red ring moved down.", "The red ring moved."])
        self.expect({"kind": "change", "change": "resized", "shape": "ring", "color": "red", "to": "bigger"},
                    ["The red ring got bigger.", "红色圆环变大了。"], ["The red ring got smaller."])
        self.expect({"kind": "change", "change": "nothing"}, ["Nothing changed.", "没有变化。"],
                    ["A red ring was added."])

    def test_a_description_lists_every_thing_with_its_number(self):
        truth = {
            "kind":
                "scene", "background":
                    "light", "things": [{"shape": "ring", "color": "red", "number": 2},
                                        {"shape": "star", "color": "blue", "number": 1}]
        }
        self.expect(truth, [
            "Two red rings and a blue star.", "A blue star, a red ring and a red ring.",
            "The picture shows two red rings and a blue star. The background is light.",
            "图中有两个红色圆环和一个蓝色星形。背景是浅色的。"
        ], [
            "A red ring and a blue star.", "Two red rings.", "Two blue rings and a red star.",
            "Two red rings and a blue star. The background is dark.",
            "Two red rings, a blue star and a green heart."
        ])

    def test_json_answers_are_compared_as_values(self):
        shapes = [{"shape": "ring", "color": "red"}, {"shape": "star", "color": "blue"}]
        self.expect({"kind": "json", "value": {"shapes": shapes}},
                    [json.dumps({"shapes": shapes}),
                     json.dumps({"shapes": shapes[::-1]}, indent=1)],
                    [json.dumps({"shapes": shapes[:1]}),
                     json.dumps(shapes), "red ring", '{"shapes": 1}'])
        self.expect({"kind": "json", "value": {"ring": 1}}, ['{"ring": 1}'],
                    ['{"ring": 2}', '{"ring": true}', '{"ring": "1"}', '{"ring": 1, "star": 1}', "{}"])

    def test_without_a_picture_only_the_fixed_sentence_is_right(self):
        self.expect({"kind": "no_picture"}, list(words.NO_PICTURE), ["A circle.", "No.", "I see no circle."])

    def test_an_unknown_kind_is_our_mistake(self):
        with self.assertRaisesRegex(ValueError, "unknown kind 'smell'"):
            right({"kind": "smell"}, "sweet")

    def test_hostile_answers_are_wrong_and_harmless(self):
        truths = [{"kind": "color", "color": "red"}, {"kind": "number",
                                                      "number": 1}, {"kind": "json", "value": {"a": 1}},
                  {"kind": "text", "text": "A"}, {"kind": "scene", "things": []}, {"kind": "no_picture"}]
        for truth in truths:
            for answer in ("", "\0", "[" * 3999, "9" * 3999, "\u202e" * 50, "red " * 2000, None, 7,
                           '{"a": 1e999}', '{"a": NaN}'):
                self.assertIsInstance(right(truth, answer), bool)
        self.assertFalse(right({"kind": "color", "color": "red"}, "red " * 2000))


@unittest.skipUnless(EVAL.is_dir(), f"{EVAL} is not there")
class HeldOutTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lines = [json.loads(line) for line in (EVAL / "questions.jsonl").read_text("utf-8").splitlines()]

    def files(self, line):
        return line["video"]["frames"] if "video" in line else line["pictures"]

    def test_every_canonical_answer_is_judged_right(self):
        for line in self.lines:
            self.assertTrue(judge.is_right(line["task"], line["truth"], line["answer"]), line)

    def test_another_question_s_answer_is_wrong(self):
        by_kind = collections.defaultdict(list)
        for line in self.lines:
            by_kind[line["truth"]["kind"]].append(line)
        for lines in by_kind.values():
            for a, b in zip(lines, lines[1:]):
                if judge.is_right(a["task"], a["truth"], b["answer"]):
                    # Only where both truths say the same.
                    self.assertTrue(judge.is_right(b["task"], b["truth"], a["answer"]), (a, b))

    def test_every_task_has_sixty_questions_in_both_languages(self):
        tasks = collections.Counter(line["task"] for line in self.lines)
        self.assertEqual(len(tasks), 14)
        self.assertGreaterEqual(min(tasks.values()), 60)
        both = collections.Counter((line["task"], line["language"]) for line in self.lines)
        self.assertGreaterEqual(min(both.values()), 20)
        self.assertEqual(len({line["id"] for line in self.lines}), len(self.lines))

    def test_the_pictures_are_there_and_small(self):
        total = (EVAL / "questions.jsonl").stat().st_size
        named = set()
        for line in self.lines:
            for name in self.files(line):
                named.add(name)
                data = (EVAL / name).read_bytes()
                self.assertTrue(data.startswith(b"\x89PNG") or data.startswith(b"\xff\xd8"), name)
                total += len(data)
        self.assertLessEqual(total, 8 << 20)
        there = {f"pictures/{path.name}" for path in (EVAL / "pictures").iterdir()}
        self.assertEqual(there, named)


def picture_tests():
    """The tests that draw; imports what they need."""
    import make_eval
    import pictures
    import tasks
    from PIL import Image, ImageChops

    def make(task, index, language="en", **options):
        rng = pictures.stream(f"test/{task}", index)
        if task == "sitting":
            return tasks.make_sitting(rng, language, **options)
        return tasks.make_example(rng, task, language, **options)

    class PicturesTest(unittest.TestCase):
        def test_colours_of_different_names_are_far_apart(self):
            rng = pictures.stream("test/colors", 0)
            samples = {c: [pictures.pick_color(rng, c) for _ in range(200)] for c in words.COLORS}
            for a in words.COLORS:
                for b in words.COLORS:
                    if a < b:
                        nearest = min(pictures.distance(p, q) for p in samples[a] for q in samples[b])
                        self.assertGreater(nearest, 24, (a, b))

        def test_boxes_are_tight(self):
            for index in range(60):
                rng = pictures.stream("test/boxes", index)
                shape = rng.choice(words.SHAPES)
                back = pictures.backdrop(rng, 200, 160, dark=False, paint=True)
                plain = back.image.copy()
                scene = pictures.draw_scene(rng, back, [(shape, "black")], [(100, 80, rng.uniform(12, 60))])
                seen = ImageChops.difference(scene.image,
                                             plain).convert("L").point(lambda v: 255 * (v > 90)).getbbox()
                for is_edge, true_edge in zip(scene.things[0].box, seen):
                    self.assertLessEqual(abs(is_edge - true_edge), 1,
                                         (index, shape, scene.things[0].box, seen))

        def test_shapes_keep_clear_of_one_another_and_of_the_edges(self):
            for scenes in (tasks.scene_distinct, tasks.scene_many, tasks.scene_sized, tasks.scene_pair,
                           tasks.scene_placed, tasks.scene_row):
                for index in range(40):
                    rng = pictures.stream("test/clear", index)
                    scene = scenes(rng, pictures.random_size(rng))
                    for i, a in enumerate(scene.things):
                        self.assertGreaterEqual(min(a.box[0], a.box[1]), 0)
                        self.assertLessEqual(a.box[2], scene.width)
                        self.assertLessEqual(a.box[3], scene.height)
                        for b in scene.things[:i]:
                            self.assertLess(judge.iou(a.box, b.box), 0.15, (scenes.__name__, index))

        def test_the_stream_decides_the_example(self):
            for task in (*tasks.TASKS, "sitting"):
                a, b, other = make(task, 3), make(task, 3), make(task, 4)
                self.assertEqual(a.turns, b.turns)
                self.assertEqual([i.tobytes() for i in a.images], [i.tobytes() for i in b.images])
                self.assertNotEqual((a.turns, [i.tobytes() for i in a.images]),
                                    (other.turns, [i.tobytes() for i in other.images]))

        def test_families_of_streams_differ(self):
            self.assertNotEqual(pictures.stream("train", 1).random(), pictures.stream("eval", 1).random())

        def test_a_forced_size_is_kept(self):
            for task in (*tasks.TASKS, "sitting"):
                for index, size in enumerate(((128, 128), (96, 320), (512, 256), (150, 201))):
                    example = make(task, index, size=size)
                    for image in (example.images or []) + (example.video or []):
                        self.assertEqual((image.size, image.mode), (size, "RGB"))

        def test_pictures_have_the_promised_sizes_and_numbers(self):
            for task in (*tasks.TASKS, "sitting"):
                for index in range(40):
                    example = make(task, index)
                    self.assertLessEqual(len(example.images), 4)
                    self.assertTrue(example.video is None or 4 <= len(example.video) <= 8)
                    if task == "compare":
                        self.assertGreaterEqual(len(example.images), 2)
                    for image in example.images + (example.video or []):
                        self.assertTrue(all(128 <= side <= 512 for side in image.size), image.size)

    class TasksTest(unittest.TestCase):
        def test_every_canonical_answer_is_judged_right(self):
            for task in (*tasks.TASKS, "sitting"):
                for index in range(120):
                    example = make(task, index, words.LANGUAGES[index % 2])
                    self.assertTrue(example.turns)
                    for turn in example.turns:
                        self.assertIn(turn.task, tasks.TASKS)
                        self.assertTrue(judge.is_right(turn.task, turn.truth, turn.answer), turn)
                        json.dumps(turn.truth)

        def test_one_turn_is_of_the_task_asked_for(self):
            for task in tasks.TASKS:
                for index in range(40):
                    self.assertEqual([turn.task for turn in make(task, index, turns=1).turns], [task])

        def test_answers_are_balanced(self):
            truths = collections.defaultdict(collections.Counter)
            for index in range(2500):
                for turn in make("sitting", index).turns:
                    value = next(
                        v for k, v in turn.truth.items() if k != "kind") if len(turn.truth) > 1 else None
                    if not isinstance(value, (list, dict)):
                        truths[turn.task, turn.truth["kind"]][value] += 1
            for key, least in {
                ("shapes", "yes_no"): 0.42, ("position", "yes_no"): 0.42, ("sizes", "size"): 0.35,
                ("position", "relation"): 0.18, ("position", "place"): 0.05, ("shapes", "shape"): 0.07,
                ("colours", "color"): 0.02
            }.items():
                total = sum(truths[key].values())
                self.assertGreater(min(truths[key].values()) / total, least, (key, truths[key]))

        def test_counts_up_to_six_are_all_asked(self):
            counts = collections.Counter()
            for index in range(600):
                counts.update(turn.truth["number"] for turn in make("count", index).turns)
            for number in range(1, 7):
                self.assertGreater(counts[number] / sum(counts.values()), 0.06, counts)

        def test_relations_are_opposite_when_turned_round(self):
            opposite = {"left": "right", "right": "left", "above": "below", "below": "above", None: None}
            for index in range(100):
                rng = pictures.stream("test/relations", index)
                scene = tasks.scene_distinct(rng, (256, 256))
                a, b = scene.things[:2]
                self.assertEqual(tasks.relation_of(a, b), opposite[tasks.relation_of(b, a)])

        def test_a_question_has_many_wordings(self):
            for language in words.LANGUAGES:
                for task in ("shapes", "colours", "count", "text", "box", "describe"):
                    asked = {make(task, i, language, turns=1).turns[0].question for i in range(120)}
                    self.assertGreater(len(asked), 30, (language, task))

    @unittest.skipUnless(EVAL.is_dir(), f"{EVAL} is not there")
    class HeldOutStreamTest(unittest.TestCase):

        def test_the_committed_questions_are_those_of_the_reserved_seed(self):
            # Tasks whose questions depend on neither fonts nor the last pixel that Pillow draws.
            steady = {"shapes", "colours", "count", "compare", "clip", "no_picture", "talk"}
            committed = {}
            for line in (EVAL / "questions.jsonl").read_text("utf-8").splitlines():
                line = json.loads(line)
                committed[line["id"]] = (line["question"], line["answer"], line["truth"])
            made = 0
            for name, example in make_eval.examples(sorted(steady)):
                turn = example.turns[0]
                self.assertEqual((turn.question, turn.answer, turn.truth), committed[name], name)
                made += 1
            self.assertGreaterEqual(made, 60 * len(steady))

    return [PicturesTest, TasksTest, HeldOutStreamTest]


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("judge", "pictures"):
        sys.exit(__doc__)
    part = sys.argv.pop(1)
    classes = [JudgeTest, HeldOutTest]
    if part == "pictures":
        try:
            import numpy  # noqa: F401
            import PIL  # noqa: F401
            import pictures
            pictures.font_files()
        except (ImportError, RuntimeError) as error:
            print(f"skipped: {error}")
            sys.exit(SKIPPED)
        classes = picture_tests()
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(c) for c in classes)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
