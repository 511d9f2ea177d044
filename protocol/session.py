"""Handshake and signed frames as a sans-I/O state machine, for both sides.

    side    state        receives      does                                            next
    ------  -----------  ------------  ----------------------------------------------  ---------
    agent   HELLO        (start)       sends Hello                                     CHALLENGE
    agent   CHALLENGE    Challenge     checks version, pinned hub key, signature;      WELCOME
                                       sends Proof
    agent   WELCOME      Welcome       checks the session id; event Opened             OPEN
    hub     HELLO        Hello         chooses a version, sends Challenge              PROOF
    hub     PROOF        Proof         checks signatures; event Proved                 DECIDING
    hub     DECIDING     (accept)      sends Welcome; event Opened                     OPEN
    hub     DECIDING     (refuse)      sends the problem                               CLOSED
    either  OPEN         frame         checks signature, sequence, payload             OPEN
    either  any          anything      an error of protocol.errors, after which        CLOSED
                         else          nothing is accepted

This file is written against in the drivers (hub.gateway, spoke_agent.link); see docs/protocol.md for bytes.
"""
