import {
  type CelFunc,
  type CelInput,
  CelScalar,
  type CelValue,
  celEnv,
  celFunc,
  celList,
  celMethod,
  isCelError,
  isCelList,
  isCelMap,
  listType,
} from '@bufbuild/cel'
import type { RE2JS } from 're2js'
import { budget } from './budget.ts'
import { chargeOf, isCharged } from './charges.ts'

/** The compiled patterns of an expression, by their text. */
export type Patterns = ReadonlyMap<string, RE2JS>

/** Those of the filter that is being evaluated, as the budget is. */
let patterns: Patterns = new Map()

/** Starts the evaluation of an expression with these patterns. */
export function begin(own: Patterns): void {
  patterns = own
  budget.start()
}

const { BOOL, DOUBLE, DYN, INT, STRING } = CelScalar
const list = listType(DYN)

/** The functions of CEL, before their cost is counted. */
export const standard: readonly CelFunc[] = [...celEnv().funcs]

/** What each loop of an expression calls: `@spend` for an element, `@weigh` for what it goes over. */
const loops: readonly CelFunc[] = [
  celFunc('@spend', [INT], BOOL, (units) => {
    budget.spend(Number(units))
    return true
  }),
  celFunc('@weigh', [DYN], DYN, (value) => {
    if (isCelList(value) || isCelMap(value)) budget.spend(value.size / 8)
    return value
  }),
]

/** JSON has one kind of number, which is a double here; literals such as `2` are integers. */
const arithmetic: readonly CelFunc[] = Object.entries({
  '_+_': (a: number, b: number) => a + b,
  '_-_': (a: number, b: number) => a - b,
  '_*_': (a: number, b: number) => a * b,
  '_/_': (a: number, b: number) => a / b,
  '_%_': (a: number, b: number) => a % b,
}).flatMap(([name, calculate]) => [
  celFunc(name, [DOUBLE, INT], DOUBLE, (a, b) => calculate(a, Number(b))),
  celFunc(name, [INT, DOUBLE], DOUBLE, (a, b) => calculate(Number(a), b)),
  ...(name === '_%_' ? [celFunc(name, [DOUBLE, DOUBLE], DOUBLE, calculate)] : []),
])

/** Those of other behaviour: they stand for the ones of CEL. */
const replaced: readonly CelFunc[] = [
  celMethod('matches', STRING, [STRING], BOOL, function (pattern) {
    const compiled = patterns.get(pattern)
    if (!compiled) throw new Error('The pattern of matches must be a literal.')
    // 25 ns for each character and instruction at worst, \pL{250} on 10,000 characters; a tenth of that as a rule.
    budget.spend(2 + (this.length * compiled.programSize()) / 8)
    return compiled.test(this)
  }),
  // The library's own joins lists to a chain, through which an iteration calls itself once for each link.
  celFunc('_+_', [list, list], list, (a, b) => {
    budget.spend((a.size + b.size) / 8)
    return celList([...a, ...b])
  }),
]

/** `func`, which pays before it works. */
function charged(func: CelFunc): CelFunc {
  const charge = chargeOf(func)
  const call = (target: CelValue | undefined, args: CelValue[]): CelInput => {
    charge(target === undefined ? args : [target, ...args])
    const result = func.call(0, target, args)
    if (result === undefined || isCelError(result)) throw result ?? new Error('No such overload.')
    return result
  }
  const { name, target, arguments: parameters, result } = func
  if (target === undefined) return celFunc(name, parameters, result, (...args: CelValue[]) => call(undefined, args))
  return celMethod(name, target, parameters, result, function (...args: CelValue[]) {
    return call(this, args)
  })
}

/** The functions of expressions, each of which is charged before it works. */
export const functions: CelFunc[] = [...standard.filter(isCharged).map(charged), ...arithmetic, ...replaced, ...loops]
