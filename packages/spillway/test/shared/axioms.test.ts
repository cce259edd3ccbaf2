import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Access, isAllowed, type Outcome } from './axioms.ts'

const load = (cell: string, as: string): Access => ({ op: 'load', cell, as })
const read = (cell: string, as: string): Access => ({ op: 'read', cell, as })
const store = (cell: string, value: number): Access => ({ op: 'store', cell, value })
const write = (cell: string, value: number): Access => ({ op: 'write', cell, value })
const add = (cell: string, value: number, as: string): Access => ({ op: 'add', cell, value, as })

interface Litmus {
  readonly name: string
  readonly threads: readonly (readonly Access[])[]
  readonly outcome: (outcome: Outcome) => boolean
  readonly allowed: boolean
}

const sanity: readonly Litmus[] = [
  {
    name: 'atomic stores, then loads of the other cell: one of them is seen',
    threads: [
      [store('x', 1), load('y', 'a')],
      [store('y', 1), load('x', 'b')],
    ],
    outcome: ({ a, b }) => a === 0 && b === 0,
    allowed: false,
  },
  {
    name: 'plain writes, then reads of the other cell: neither need be seen',
    threads: [
      [write('x', 1), read('y', 'a')],
      [write('y', 1), read('x', 'b')],
    ],
    outcome: ({ a, b }) => a === 0 && b === 0,
    allowed: true,
  },
  {
    name: 'all see atomic stores in one order',
    threads: [[store('x', 1)], [store('y', 1)], [load('x', 'a'), load('y', 'b')], [load('y', 'c'), load('x', 'd')]],
    outcome: ({ a, b, c, d }) => a === 1 && b === 0 && c === 1 && d === 0,
    allowed: false,
  },
  {
    name: 'two additions do not read the same',
    threads: [[add('x', 1, 'a')], [add('x', 1, 'b')]],
    outcome: ({ a, b }) => a === b,
    allowed: false,
  },
]

/** New bytes were seen, and the validation passed. */
const isFooled = ({ bytes, valid }: Outcome) => bytes === 2 && valid === 0
/** With what was published before: anything but the published bytes. */
const isFooledAfterTail = ({ tail, bytes, valid }: Outcome) => tail === 1 && bytes !== 1 && valid === 0

const published = [write('bytes', 1), store('tail', 1)]
const overwrite = write('bytes', 2)
const copy = read('bytes', 'bytes')
const claims = { store: store('intent', 1), add: add('intent', 1, 'claim') }
const validations = { load: load('intent', 'valid'), add: add('intent', 0, 'valid') }

const pairs = (['store', 'add'] as const).flatMap((claim) =>
  (['load', 'add'] as const).flatMap((validation): Litmus[] => {
    const name = `claimed by Atomics.${claim}, validated by Atomics.${validation}`
    const allowed = claim === 'store' || validation === 'load'
    return [
      {
        name,
        threads: [
          [claims[claim], overwrite],
          [copy, validations[validation]],
        ],
        outcome: isFooled,
        allowed,
      },
      {
        name: `${name}, after a load of the tail`,
        threads: [
          [...published, claims[claim], overwrite],
          [load('tail', 'tail'), copy, validations[validation]],
        ],
        outcome: isFooledAfterTail,
        allowed,
      },
    ]
  }),
)

const table: readonly Litmus[] = [
  ...pairs,
  {
    name: 'claimed and validated by Atomics.add, two readers',
    threads: [
      [claims.add, overwrite],
      [copy, validations.add],
      [read('bytes', 'other'), add('intent', 0, 'otherValid')],
    ],
    outcome: (outcome) => isFooled(outcome) || (outcome.other === 2 && outcome.otherValid === 0),
    allowed: false,
  },
  {
    name: 'claimed and validated by Atomics.add, two claims',
    threads: [
      [claims.add, overwrite, add('intent', 1, 'second'), write('bytes', 3)],
      [copy, validations.add],
    ],
    outcome: ({ bytes, valid = 0 }) => (bytes === 2 && valid < 1) || (bytes === 3 && valid < 2),
    allowed: false,
  },
  {
    name: 'a read-modify-write of a private cell on both sides as a fence',
    threads: [
      [claims.store, add('writers', 0, 'w'), overwrite],
      [copy, add('readers', 0, 'r'), validations.load],
    ],
    outcome: isFooled,
    allowed: true,
  },
  {
    name: 'a read-modify-write of one common cell on both sides as a fence',
    threads: [
      [claims.store, add('fence', 0, 'w'), overwrite],
      [copy, add('fence', 0, 'r'), validations.load],
    ],
    outcome: isFooled,
    allowed: false,
  },
  {
    name: 'the bytes themselves atomic',
    threads: [
      [claims.store, store('bytes', 2)],
      [load('bytes', 'bytes'), validations.load],
    ],
    outcome: isFooled,
    allowed: false,
  },
  {
    name: 'the tail atomic, the bytes plain: stale bytes',
    threads: [published, [load('tail', 'tail'), copy]],
    outcome: ({ tail, bytes }) => tail === 1 && bytes === 0,
    allowed: false,
  },
  {
    name: 'the tail stored, then the flag loaded; the flag stored, then the tail loaded: a lost wake-up',
    threads: [
      [store('tail', 1), load('flag', 'flag')],
      [store('flag', 1), load('tail', 'tail')],
    ],
    outcome: ({ flag, tail }) => flag === 0 && tail === 0,
    allowed: false,
  },
  {
    name: 'EPOCH stored before the claim: the bytes of a new span with the old EPOCH',
    threads: [
      [store('epoch', 1), claims.add, overwrite],
      [copy, validations.add, load('epoch', 'epoch')],
    ],
    outcome: ({ bytes, valid, epoch }) => bytes === 2 && (valid === 0 || epoch === 0),
    allowed: false,
  },
  {
    name: 'EPOCH stored after the claim: the bytes of a new span with the old EPOCH',
    threads: [
      [claims.add, store('epoch', 1), overwrite],
      [copy, validations.add, load('epoch', 'epoch')],
    ],
    outcome: ({ bytes, valid, epoch }) => bytes === 2 && (valid === 0 || epoch === 0),
    allowed: true,
  },
]

for (const { name, threads, outcome, allowed } of [...sanity, ...table]) {
  test(`the memory model ${allowed ? 'allows' : 'forbids'}: ${name}`, () => {
    assert.equal(isAllowed(threads, outcome), allowed)
  })
}
