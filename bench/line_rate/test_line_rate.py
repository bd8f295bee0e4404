"""The search on receivers that are only numbers, and the files of a run in pieces: python3 -m unittest discover -s bench/line_rate"""

import tempfile
import types
import unittest
from pathlib import Path

import run
import search
from search import Load, Throughput, Trial


class Simulated(search.Bench):
    """A generator that can `most`, and a receiver that gets all up to `can`, and in overload `overload` of it."""

    def __init__(self, most, can, overload=1.0, resolution=5):
        options = types.SimpleNamespace(seconds=1, loss=0, tries=1, resolution=resolution)
        super().__init__(None, None, types.SimpleNamespace(throughput=lambda found: None), options)
        self.most, self.can, self.overload, self.asked = most, can, overload, []

    def trial(self, receiver, load, rate, seconds, purpose="search"):
        self.asked.append(rate)
        sent = min(rate or self.most, self.most)
        got = sent if sent <= self.can else self.can * self.overload
        return trial(rate=float(sent), sent=round(sent), delivered=round(got), loss=round(sent - got))


def trial(**changed):
    values = dict(receiver="r", size="64", flows=1, asked="1", rate=1.0, seconds=1.0, sent=1, refused=0, offered=None, delivered=1,
                  dropped="", loss=0, cpu_s=0.0, napi_s=0.0, exact="yes", load=0.0, purpose="search", others_percent=0.0)
    return Trial(**(values | changed))


def found(bench, near=None):
    search.say = lambda text: None
    return bench.search(types.SimpleNamespace(name="r"), Load("64", 1), near)


class Search(unittest.TestCase):
    def test_finds_the_rate_from_any_kind_of_overload(self):
        for can in (2e4, 5e4, 1.1e6, 2.4e6, 4.8e6):
            for overload in (0, 0.01, 0.5, 1):
                for near in (None, can / 20, 0.9 * can, can, 1.2 * can, 20 * can):
                    bench = Simulated(5e6, can, overload)
                    rate = found(bench, near).rate
                    self.assertLessEqual(rate, can)
                    # Bounds 5 % apart, and the lower one is told.
                    self.assertGreater(rate, 0.94 * can, (can, overload, near, bench.asked))
                    self.assertLessEqual(len(bench.asked), 22, bench.asked)

    def test_a_good_guess_is_cheap(self):
        bench = Simulated(5e6, 1e6, 0)
        found(bench, 0.97e6)
        self.assertLessEqual(len(bench.asked), 5, bench.asked)

    def test_one_trial_where_the_generator_is_the_limit(self):
        bench = Simulated(5e6, 6e6)
        self.assertEqual((found(bench).rate, found(bench).limit, len(bench.asked)), (5e6, "generator", 2))

    def test_gives_up_on_who_loses_at_every_rate_and_never_asks_for_the_most_again(self):
        bench = Simulated(5e6, 0, 0)
        self.assertEqual(found(bench).rate, 0)
        self.assertLess(len(bench.asked), 15)
        self.assertTrue(all(bench.asked[1:]), bench.asked)


class Pieces(unittest.TestCase):
    def options(self, folder, **changed):
        shared = {name: 1 for name in run.SHARED}
        return types.SimpleNamespace(**(shared | dict(out=folder, resume=True, sizes=["64"], flows=["1"]) | changed))

    def test_a_piece_adds_to_what_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            out = run.Out(self.options(folder))
            out.trial(trial(loss=7, offered=5))
            out.throughput(Throughput("r", "64", 1, 1e6, 2e6, 3e6, 0.5, "receiver", 4))
            out.save()
            out.close()
            # A kill in the middle of a line.
            with open(Path(folder) / "trials.csv", "a", encoding="utf-8") as file:
                file.write("r,64,1,ma")
            out = run.Out(self.options(folder, sizes=["64", "imix"]))
            self.assertEqual([(row.loss, row.offered, row.rate) for row in out.rows[Trial]], [(7, 5, 1.0)])
            self.assertEqual(out.of(Throughput, "r", Load("64", 1))[0].rate, 1e6)
            self.assertEqual(out.of(Throughput, "r", Load("imix", 1)), [])
            self.assertEqual(out.state["sizes"], ["64", "imix"])
            out.close()
            with self.assertRaises(SystemExit):
                run.Out(self.options(folder, seconds=2))
            out = run.Out(self.options(folder, resume=False))
            self.assertEqual(out.rows[Trial], [])
            out.close()


if __name__ == "__main__":
    unittest.main()
