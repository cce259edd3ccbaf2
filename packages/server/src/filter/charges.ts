import { type CelFunc, type CelValue, isCelList, isCelMap } from '@bufbuild/cel'
import { budget } from './budget.ts'

/** Longest text that is read as a number, a time or a zone: BigInt takes the square of its length. */
const maxLiteral = 128
/** What a named time zone costs: a formatter is made for each use, 60 microseconds here. */
const zoneCost = 300

/** Whether what a function costs depends on what it is given. */
export function isCharged({ name, target, arguments: parameters }: CelFunc): boolean {
  if (name === 'type' || name === 'dyn') return false
  return (target ? [target, ...parameters] : parameters).some((type) => heavy.has(type.name))
}

const heavy: ReadonlySet<string> = new Set(['string', 'bytes', 'list', 'dyn'])

/** Pays for a call with these values, the target first. */
export type Charge = (values: readonly CelValue[]) => void

/** What a call of `func` costs. */
export function chargeOf({ name, target, arguments: parameters }: CelFunc): Charge {
  if (target?.kind === 'object' && parameters.length === 1) return chargeZone
  if (name === '@in' && parameters[1]?.name === 'list') return chargeSearch
  if (conversions.has(name)) return chargeConversion
  return charges[name] ?? chargeTexts
}

const conversions: ReadonlySet<string> = new Set(['int', 'uint', 'double', 'bool', 'timestamp', 'duration'])

const chargeTexts: Charge = (values) => {
  let length = 0
  for (const value of values) length += lengthOf(value)
  budget.spend(1 + length / 256)
}

const chargeConversion: Charge = ([value]) => {
  if (lengthOf(value) > maxLiteral) throw new Error(`Texts of more than ${maxLiteral} characters are not converted.`)
  budget.spend(10 + lengthOf(value) / 2)
}

const chargeZone: Charge = ([, zone]) => {
  chargeConversion([zone as CelValue])
  budget.spend(zoneCost)
}

const chargeComparison: Charge = ([a, b]) => {
  budget.spend(1 + Math.min(lengthOf(a), lengthOf(b)) / 256)
  // Lists and maps of different sizes are told apart at once.
  if (sizeOf(a) === sizeOf(b) && ((isCelList(a) && isCelList(b)) || (isCelMap(a) && isCelMap(b)))) weigh(a)
}

const chargeSearch: Charge = ([value, list]) => {
  budget.spend(1 + (sizeOf(list) ?? 0) * (1 + lengthOf(value) / 256))
  if (sizeOf(value) !== undefined) weigh(list as CelValue)
}

const charges: Readonly<Record<string, Charge>> = {
  '_==_': chargeComparison,
  '_!=_': chargeComparison,
  '_<_': chargeComparison,
  '_<=_': chargeComparison,
  '_>_': chargeComparison,
  '_>=_': chargeComparison,
  startsWith: chargeComparison,
  endsWith: chargeComparison,
  // A search may compare every character of the one with every character of the other.
  contains: ([text, part]) => budget.spend(1 + (lengthOf(text) * (1 + lengthOf(part))) / 128),
  // It makes an array of them.
  size: ([value]) => budget.spend(1 + lengthOf(value) / 8),
}

function lengthOf(value: CelValue | undefined): number {
  return typeof value === 'string' || value instanceof Uint8Array ? value.length : 0
}

function sizeOf(value: CelValue | undefined): number | undefined {
  return isCelList(value) || isCelMap(value) ? value.size : undefined
}

/** Pays for all that `value` holds. */
function weigh(value: CelValue): void {
  budget.spend(lengthOf(value) / 256)
  if (isCelList(value)) {
    budget.spend(value.size)
    for (const element of value) weigh(element)
  } else if (isCelMap(value)) {
    budget.spend(value.size)
    for (const member of value.values()) weigh(member)
  }
}
