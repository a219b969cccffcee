"""Campaigns: many hunts at once, in processes of this machine or on a Dask cluster, that go on where they were cut off.

Every hunt is the one that ``attest certify`` makes of the same target with the same settings: a job is a target, whose dtypes
are hunted one after the other in one worker, since a kernel that keeps something from call to call meets the same shapes in
each. What comes back is plain data, which is also what the ledger keeps, and becomes a certificate again here.
"""
