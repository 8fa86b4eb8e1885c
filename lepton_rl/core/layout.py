"""Columns of the packed arrays that snapshots, the simulator and the codec share.

A cluster's state is a few arrays, so that compiled functions take few arguments. Jobs are rows; GPUs are numbered
through the nodes (on equal nodes GPU `i` of node `n` is `n * gpus_per_node + i`). A cluster whose nodes differ has the
columns under "detailed" too, and `hw` (`core.hardware.tables`) beside the arrays. Shares of a GPU are counted in
thousandths ("milli-GPU", 1000 = one GPU) and memory in MiB, both as integers, so that what is taken and given back
sums exactly.
"""

MILLI = 1000
"""Thousandths of a GPU in one GPU."""
MIB_PER_GIB = 1024

# jobs: float64 (jobs, JOB_COLUMNS), all that a scheduler can know of a job.
ID = 0
SUBMIT = 1  # seconds
REQUESTED = 2  # seconds, NaN where the workload has no requested times
GPUS = 3  # milli-GPU: 1000 x a whole number, or less than 1000 for a share
MEMORY = 4  # MiB on each GPU, 0 where the job gives no figure
COMPUTE = 5
TIME_SENSITIVITY = 6
QUEUE = 7  # code of the queue, -1 unknown
USER = 8
PROJECT = 9
SCORE = 10  # the order's value, lowest first
MARGIN = 11  # milli-GPU that must stay free beside the job when it starts
START = 12  # start of the present run, seconds
ATTAINED = 13  # seconds of service before the present run
PREDICTED = 14  # seconds that the present run is predicted to take (requested time left plus restart costs)
FIRST_GPU = 15  # first held GPU; the chain goes on in gpus[:, NEXT]; -1 while waiting
JOB_COLUMNS = 16
DEADLINE = 16  # seconds, on the clock of SUBMIT; infinity where the job has none; there only where some job has one
# detailed
CLASS = 17  # class of the job, a column of hw.speed
TYPES = 18  # bit t is set where GPUs of type t will do, with their memory
FEWEST = 19  # fewest nodes that hold the job on the empty cluster
RATE = 20  # seconds of service that a second of the present run gives
PLAN_RATE = 21  # the same on the slowest GPUs that will do: what a plan counts with before it has chosen GPUs
SINCE = 22  # seconds from which on RATE holds: ATTAINED and PREDICTED are those of this moment
BEFORE = 23  # ATTAINED at the start of the present run
UNMET = 24  # jobs that must finish before this one may start
NEXT_SHARE = 25  # of the shares on its GPU the one that came before it, -1 for none
ON_GPU = 26  # the GPU in whose list of shares it stands, -1 for none
CHOICE = 27  # of a learner for the next start: column of hw.levels_mw; where that has none, 1 + the only type, or 0
ASKS = 28  # what the job takes on a node beside each GPU, in the units of the node's ROOM, one column each

# truth: float64 (jobs, TRUTH_COLUMNS), what only the simulator knows.
RUN = 0  # seconds of service that finish the job
REMAINING = 1  # seconds of service left at the start of the present run, restart costs included
FIRST_START = 2
FINISH = 3
PREEMPTIONS = 4
TRUTH_COLUMNS = 5
# detailed
END = 5  # when the present run will end, infinity while there is none
STRIKES = 6  # failures that struck the job
LOST = 7  # seconds of service that failures undid
CHARGED = 8  # END as an observer last counted with it
CHANGED = 9  # 1 while the job stands in run_job[CHANGED_ENDS]
MIGRATIONS = 10
DETAILED_TRUTH_COLUMNS = 11

# gpus: int32 (GPUs, GPU_COLUMNS)
FREE = 0  # milli-GPU
MEMORY_FREE = 1  # MiB
NEXT = 2  # next GPU of the gang that holds this one, -1 at its end
GPU_COLUMNS = 3
# detailed
NODE = 3  # the GPU's node
DOWN = 4  # failures that keep it down
LIMIT = 5  # power limit, milliwatts
LOAD = 6  # what full load adds to the idle draw under that limit, milliwatts
KEPT = 7  # part of its speed that limit and heat leave, in units of 1 / WHOLE_SPEED
STIRRED = 8  # 0 where load, limit and health are as when rates were set; else 2 + the next such GPU, 1 at the end
RATED = 9  # KEPT as the rate of the present gang counts it
FIRST_JOB = 10  # the gang that holds it, or the last of its shares to come; says nothing of a free GPU
MATES = 11  # shares on it, a column for each class of job; there only where pairs of classes are told apart
DETAILED_GPU_COLUMNS = 11
WHOLE_SPEED = 100_000_000

# nodes: int32 (nodes, NODE_COLUMNS)
WHOLE = 0  # wholly free GPUs
BUSY = 1  # milli-GPU held by jobs
MEMORY_USED = 2  # MiB held by jobs
NODE_COLUMNS = 3
# detailed
FIRST = 3  # the node's first GPU
COUNT = 4  # its GPUs
TYPE = 5  # their type, a row of hw.speed
MEMORY_EACH = 6  # MiB of each
RACK = 7
GPUS_DOWN = 8  # GPUs that a failure keeps down
LASTS = 9  # second at which the node is reserved next: RESERVED while it is, UNCOUNTED where it never will be
CLOCK = 10  # of node 0 alone: the present second, rounded up, where nodes are reserved
ROOM = 11  # free CPU, RAM and named accelerators in thousandths, one column each
UNCOUNTED = 2**31 - 1
"""ROOM of a node for what its group does not name; LASTS of a node that is not reserved."""
RESERVED = -1

# totals: int64 (TOTAL_COLUMNS,)
FREE_WHOLE = 0  # wholly free GPUs of the cluster
HINT = 1  # no node before this one has a wholly free GPU
HELD = 2  # milli-GPU held by jobs
GPU_MEMORY = 3  # MiB of one GPU
STRANDED = 4  # free milli-GPU on nodes of which a part is held
TOUCHED = 5  # nodes that changed since an observer looked, listed in the columns behind; -1 when too many to list
MAX_TOUCHED = 12
TOTAL_COLUMNS = 6 + MAX_TOUCHED
# detailed
POWER = TOTAL_COLUMNS  # draw of all GPUs by load and limit, microwatts
HELD_BACK = TOTAL_COLUMNS + 1  # part of POWER that GPUs do not draw because they throttle, microwatts
LOST_GPUS = TOTAL_COLUMNS + 2  # milli-GPU that are down
STIRRED_GPUS = TOTAL_COLUMNS + 3  # 1 + the first of the GPUs marked in gpus[:, STIRRED], 0 for none
DETAILED_TOTAL_COLUMNS = TOTAL_COLUMNS + 4
NODE_DRAW = DETAILED_TOTAL_COLUMNS  # first of the columns behind: of each node its part of POWER less that of HELD_BACK

# counts: int64 (COUNT_COLUMNS,), the scheduler's bookkeeping.
FRONT = 0  # the waiting jobs are queue[FRONT:BACK]
BACK = 1
RUNNING = 2  # jobs that run
ARRIVED = 3  # jobs that have been submitted: rows 0 .. ARRIVED-1
TESTED = 4  # jobs that the last scheduling pass knew
RELEASED = 5  # 1 when GPUs were given back since the last pass
HEAD = 6  # head of the queue for which clock[SHADOW] and clock[EXTRA] hold, -1 for none
STARTED = 7  # jobs that the present pass has started: started[:STARTED]
PREEMPTED = 8  # jobs that the present pass has preempted: preempted[:PREEMPTED]
NOT_READY = 9  # jobs that have been submitted and wait for others to finish
FAULT = 10  # next row of hw.fault_time
BASE = 11  # row of hw.followers that belongs to the job in row 0
GREW = 12  # 1 when capacity came back at the last event
CHANGES = 13  # jobs in run_job[CHANGED_ENDS]
COUNT_COLUMNS = 14

# clock: float64 (CLOCK_COLUMNS,)
NOW = 0  # seconds
BUSY_INTEGRAL = 1  # milli-GPU seconds held since the start
SHADOW = 2  # predicted start of the blocked head, seconds
EXTRA = 3  # milli-GPU that backfilled jobs may hold beyond the shadow
TIMER = 4  # next timer event, seconds
STRANDED_INTEGRAL = 5  # milli-GPU seconds free on partly held nodes
CLOCK_COLUMNS = 6
# detailed
ENERGY = 6  # joules of all GPUs since the start
ELECTRICITY = 7  # USD that they cost
CARBON = 8  # gCO2eq that they caused
NEXT_HEAT = 9  # when the next GPU reaches its throttle temperature
NEXT_RESERVATION = 10  # when the next reservation begins or ends
SHOWN_AT = 11  # when an observer last looked at all temperatures
DETAILED_CLOCK_COLUMNS = 12
# where temperatures are counted, behind the columns above: for each GPU when it will be at its throttle temperature;
# the least of these in each block of HEAT_BLOCK GPUs; then HEAT_COLUMNS for each GPU; then NODE_HEAT_ROWS with a
# number for each node
HEAT_BLOCK = 32
STEADY = 0  # temperature that its present draw leads to, degrees Celsius
DEGREES = 1  # temperature at its node's time COUNTED_AT, degrees Celsius
NOT_DRAWN = 2  # microwatts that it does not draw because it throttles
HEAT_COLUMNS = 3
COUNTED_AT = 0  # seconds
DECAY = 1  # minus the reciprocal of its GPUs' time constant, 1/s
STEADY_SUM = 2  # sums over the node's GPUs, for observers; of its state when it was last touched
ABOVE_SUM = 3
NODE_HEAT_ROWS = 4

# rules: int64 (RULE_COLUMNS,), what a run does not change.
ORDER = 0
BLOCKING = 1
PLACEMENT = 2
DYNAMIC = 3  # 1 when scores change with time: the queue is ordered anew at each pass
PREEMPTIVE = 4  # 1 when running jobs are ordered too
COUNTED = 5  # 1 when counting free GPUs decides whether a job fits (whole GPUs, no consolidation)
PREDICTS = 6  # 1 when predicted ends are kept in order (backfilling)
RULE_COLUMNS = 7

# settings: float64 (SETTING_COLUMNS,)
WEIGHTS = 0  # eight weights of the order
PREEMPTION_COST = 8  # checkpoint plus restore, seconds
QUANTUM = 9  # a run is not preempted before it is this old, seconds
TIMER_INTERVAL = 10  # seconds between timer events, 0 for none
SETTING_COLUMNS = 11

# rows of run_end (2, most jobs that can run) and run_job (RUN_ROWS, ...): the jobs that run, twice.
TRUE_ENDS = 0  # binary heap by true end
PREDICTED_ENDS = 1  # ascending by predicted end; kept when rules[PREDICTS]
PREDICTED_DEMAND = 2  # run_job only: milli-GPU of the jobs in the row above
RUN_ROWS = 3
# detailed
CHANGED_ENDS = 3  # run_job only: jobs whose true end has changed, for observers
DETAILED_RUN_ROWS = 4
