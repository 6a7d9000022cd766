#!/usr/bin/env python3
"""Each program logs one line for its part of a chat, and the W3C trace of the client ties them together."""
import unittest

from cluster import Cluster, image_part, picture, png, text_part

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def question(text, pictures=(), **fields):
    content = [image_part(name) for name in pictures] + [text_part(text)]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 5, "temperature": 0,
            "ignore_eos": True, **fields}


class LogLinesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("moe-micro")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def ask(self, trace, body):
        headers = {"traceparent": f"00-{trace}-{SPAN}-01"}
        return self.cluster.request("POST", "/v1/chat/completions", body, headers=headers)

    def one(self, message, trace):
        """The one line of this message and trace."""
        lines = self.cluster.await_lines(1, message, trace_id=trace)
        self.assertEqual(len(lines), 1, lines)
        self.assertEqual(lines[0]["level"], "info")
        return lines[0]

    def test_a_chat_with_a_picture_leaves_a_line_in_every_program(self):
        status, answer = self.ask(TRACE, question("What is it?", ["tiny.png"], n=2))
        self.assertEqual(status, 200, answer)
        request, chat, encode, generate = (self.one(message, TRACE)
                                           for message in ("request", "chat", "encode", "generate"))
        # Each part is within its caller's: gateway, router, then encoder and decoder.
        self.assertEqual(chat["parent_span_id"], request["span_id"])
        self.assertEqual(encode["parent_span_id"], chat["span_id"])
        self.assertEqual(generate["parent_span_id"], chat["span_id"])
        self.assertEqual(len({line["span_id"] for line in (request, chat, encode, generate)}), 4)
        self.assertEqual([line["program"] for line in (chat, encode, generate)],
                         ["prism-router", "prism-vision-encoder", "prism-decoder"])

        self.assertEqual(generate["generation"], chat["generation"])
        self.assertEqual(generate["status"], "OK")
        self.assertEqual(generate["prompt_tokens"], answer["usage"]["prompt_tokens"])
        self.assertEqual(generate["completion_tokens"], answer["usage"]["completion_tokens"])
        self.assertEqual((generate["choices"], generate["pictures"]), (2, 1))
        self.assertEqual(generate["visual_tokens"], encode["visual_tokens"])
        self.assertEqual(encode["patches"], 4 * encode["visual_tokens"])
        self.assertEqual((encode["status"], encode["cached"]), ("OK", False))
        for line, stages in ((encode, ["image_decode_s", "queue_s", "encode_s"]),
                             (generate, ["queue_s", "pull_s", "prefill_s", "decode_s"])):
            self.assertGreater(line["total_s"], 0)
            self.assertLessEqual(sum(line[stage] for stage in stages), line["total_s"] + 1e-6, line)

    def test_a_picture_that_comes_again_is_said_to_be_held(self):
        for trace in ("1" * 32, "2" * 32):
            self.assertEqual(self.ask(trace, question("And now?", ["coffee.jpg"]))[0], 200)
        self.assertFalse(self.one("encode", "1" * 32)["cached"])
        self.assertTrue(self.one("encode", "2" * 32)["cached"])

    def test_a_text_chat_leaves_no_line_in_the_encoder(self):
        self.assertEqual(self.ask("3" * 32, question("Hello"))[0], 200)
        self.assertEqual(self.one("generate", "3" * 32)["pictures"], 0)
        self.assertEqual(self.cluster.lines("encode", trace_id="3" * 32), [])

    def test_a_picture_that_the_encoder_refuses_is_said_so_and_reaches_no_decoder(self):
        body = question("What is it?")
        body["messages"][0]["content"].insert(0, picture(png(64, 64)))  # far fewer pixels than it says
        self.assertEqual(self.ask("4" * 32, body)[0], 400)
        encode = self.one("encode", "4" * 32)
        self.assertEqual((encode["status"], encode["patches"]), ("INVALID_ARGUMENT", 0))
        self.assertEqual(self.one("chat", "4" * 32)["status"], "INVALID_ARGUMENT")
        self.assertEqual(self.cluster.lines("generate", trace_id="4" * 32), [])


if __name__ == "__main__":
    unittest.main()
