"""What the machine was doing when it froze: parsers, the blame graph, captures, and the stage that asks for them.

    from rogue_hunter.forensics.parse import parse_file        bytes of a report or a log -> records
    from rogue_hunter.forensics.blame import blame             records -> who holds up whom
    from rogue_hunter.forensics.capture import capture         identities -> records, from the living machine
    from rogue_hunter.forensics.beside import Beside           the same, made by a process of its own
    from rogue_hunter.forensics.stage import forensics         ticks -> ticks, captures made off the beat

Parsers are pure and take bytes. What reads the machine takes the /proc root, the commands and the clock as parameters.
"""
