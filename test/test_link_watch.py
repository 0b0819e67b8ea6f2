# SPDX-License-Identifier: Apache-2.0
"""What the device believes of the other end: the bridge's word, for as long as the bridge lives."""

from fleet_device_node.link_watch import LinkWatch


def living(now=0.0):
    watch = LinkWatch()
    watch.told(now, connected=True)
    watch.beat(now)
    return watch


def test_the_bridge_s_word_counts_and_is_news_once():
    watch = LinkWatch()
    assert not watch.connected
    assert watch.told(0.0, connected=False) is None
    assert watch.told(1.0, connected=True) == "the hub is there"
    assert watch.told(2.0, connected=True) is None
    assert watch.told(3.0, connected=False) == "no hub: the device answers by itself"
    assert (watch.connected, watch.why) == (False, "no hub")


def test_a_bridge_that_falls_silent_is_gone_until_it_speaks_again():
    watch = living()
    assert watch.look(2.9) is None
    assert watch.connected
    assert "silent" in watch.look(3.1)
    assert (watch.connected, watch.why) == (False, "the bridge is gone")
    assert watch.look(4.0) is None
    assert watch.beat(5.0) == "the bridge is back"
    assert watch.connected


def test_a_bridge_that_comes_back_without_a_hub_is_believed():
    watch = living()
    watch.look(3.1)
    assert watch.told(5.0, connected=False) is None
    assert watch.beat(5.0) is None
    assert (watch.connected, watch.why) == (False, "no hub")
    assert watch.told(6.0, connected=True) == "the hub is there"


def test_a_bridge_that_sends_no_statistics_is_not_called_gone():
    watch = LinkWatch()
    watch.told(0.0, connected=True)
    assert watch.look(1000.0) is None
    assert watch.connected


def test_a_bridge_that_pauses_by_its_life_cycle_is_no_dead_one():
    watch = living()
    watch.told(1.0, connected=False)
    assert watch.look(50.0) is None
    assert watch.told(60.0, connected=True) == "the hub is there"
    assert watch.look(62.0) is None
    assert watch.connected
