"""What the node holds, read over the web: QIDO-RS and WADO-RS. Changes nothing, parses nothing.

Data sets are parsed in a sandbox; here lie addresses, search and the wire format.
"""
