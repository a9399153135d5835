"""A browser's networks: name spaces of this case alone, with two links between the edge's and the
browser's, of both families, that can be taken down and made to lose all UDP. Wants root."""

import subprocess

from .case import Skip
from .nat import TwoSides, enter, ip, space

# Where the edge is, by either family, whatever link is taken.
EDGE_AT, EDGE_AT_6 = "198.51.100.1", "2001:db8::1"
# The browser's addresses on each link.
BROWSER_AT = {"one": ("10.1.0.2", "2001:db8:1::2"), "two": ("10.2.0.2", "2001:db8:2::2")}


class Links(TwoSides):
    """The case lives with the edge; what is started within `inside()` reaches it by two links: the
    first unless it is down, or something is bound to the second's address."""

    def __init__(self, box):
        try:
            self.outside = space()
        except OSError as refused:
            raise Skip(f"no network of one's own here: {refused}") from refused
        # Interfaces are handed to a process's name space.
        holder = subprocess.Popen(["sleep", "infinity"])
        box.processes.append(holder)
        ip(f"address add {EDGE_AT}/32 dev lo")
        ip(f"address add {EDGE_AT_6}/128 dev lo nodad")
        # What is looked up first could else not be lost.
        for family in ("", "-6"):
            ip(f"{family} rule add pref 10 lookup local")
            ip(f"{family} rule del pref 0")
        self.within = space()
        for number, (name, (four, six)) in enumerate(BROWSER_AT.items(), start=1):
            ip(f"link add name {name} type veth peer name {name} netns {holder.pid}")
            ip(f"link set {name} up")
            ip(f"address add {four}/24 dev {name}")
            ip(f"address add {six}/64 dev {name} nodad")
            self.edge_side(name)
            for own, far, options in ((four, four[:-1] + "1", ""), (six, six[:-1] + "1", "-6")):
                ip(f"{options} route add default via {far} dev {name} metric {number}0")
                ip(f"{options} route add default via {far} dev {name} table 10{number}")
                ip(f"{options} rule add from {own} lookup 10{number}")
        enter(self.outside)

    def edge_side(self, name):
        """The other end of a link."""
        four, six = BROWSER_AT[name]
        enter(self.outside)
        ip(f"link set {name} up")
        ip(f"address add {four[:-1]}1/24 dev {name}")
        ip(f"address add {six[:-1]}1/64 dev {name} nodad")
        enter(self.within)

    def take_down(self, name):
        """A link is gone, as a cable that is pulled out."""
        with self.inside():
            ip(f"link set {name} down")

    def lose_udp(self, *families):
        """UDP of these families does not reach the edge any more; nobody is told."""
        for family in families:
            for name in BROWSER_AT:
                option = "-6" if family == 6 else ""
                ip(f"{option} rule add pref 5 iif {name} ipproto udp blackhole")
