import type { CelFunc } from '@bufbuild/cel'
import { RE2JS } from 're2js'
import type { SpillwayError } from 'spillway'
import { type Patterns, standard } from './functions.ts'
import { namespaceName, type Source, shown } from './source.ts'
import { type Call, children, type Expr } from './tree.ts'

/** Most nodes of a tree: names, literals, operators, calls, and what macros add. */
export const maxNodes = 256
/** How deep a tree may nest. */
export const maxDepth = 32
/** Instructions of a compiled pattern, by which each character costs. */
export const maxPatternSize = 256

/** Names that the loops around a node have given to elements. */
type Scope = ReadonlySet<string>

/**
 * Refuses what is wrong with an expression whatever the event: its size, unknown names, calls that no function takes, and
 * what is neither true nor false where that is asked for. Returns the patterns, compiled. Throws `INVALID` with the position.
 */
export function check(source: Source): Patterns {
  measure(source)
  const patterns = new Map<string, RE2JS>()
  const checker = new Checker(source, patterns)
  checker.visit(source.tree, new Set())
  checker.expectCondition(source.tree, new Set())
  return patterns
}

function measure(source: Source): void {
  let nodes = 0
  const visit = (expr: Expr, depth: number): void => {
    if (++nodes > maxNodes) throw source.error(expr, `it has more than ${maxNodes} parts`)
    if (depth > maxDepth) throw source.error(expr, `it nests deeper than ${maxDepth} levels`)
    for (const child of children(expr)) visit(child, depth + 1)
  }
  visit(source.tree, 1)
}

const texts = ['topic', 'type', 'key', namespaceName]
const variables = [...texts, 'filterKeys', 'payload']
const known = variables.join(', ').replace(namespaceName, 'namespace')
const types = ['int', 'uint', 'double', 'bool', 'string', 'bytes', 'list', 'map', 'null_type']

class Checker {
  readonly #source: Source
  readonly #patterns: Map<string, RE2JS>

  constructor(source: Source, patterns: Map<string, RE2JS>) {
    this.#source = source
    this.#patterns = patterns
  }

  visit(expr: Expr, scope: Scope): void {
    const { case: kind, value } = expr.exprKind
    if (kind === 'comprehensionExpr') {
      const inner = new Set([...scope, value.iterVar, value.accuVar])
      for (const part of children(expr)) this.visit(part, part === value.iterRange ? scope : inner)
      return
    }
    if (kind === 'identExpr') this.#checkName(expr, value.name, scope)
    if (kind === 'selectExpr' && value.operand && isText(value.operand, scope)) {
      throw this.#error(expr, `a text has no field ${shown(value.field)}`)
    }
    if (kind === 'structExpr' && value.messageName !== '') {
      throw this.#error(expr, `${shown(value.messageName)} is not known`)
    }
    if (kind === 'callExpr') this.#checkCall(expr, value, scope)
    for (const part of children(expr)) this.visit(part, scope)
  }

  /** Refuses what is neither true nor false for any event. */
  expectCondition(expr: Expr, scope: Scope): void {
    if (!mayBeCondition(expr, scope)) throw this.#error(expr, 'this is neither true nor false')
  }

  #checkName(expr: Expr, name: string, scope: Scope): void {
    if (scope.has(name) || variables.includes(name) || types.includes(name)) return
    throw this.#error(expr, `${shown(name)} is not known. Known: ${known}`)
  }

  #checkCall(expr: Expr, { function: name, target, args }: Call, scope: Scope): void {
    for (const operand of args.slice(0, conditions[name] ?? 0)) this.expectCondition(operand, scope)
    if (Object.hasOwn(planned, name)) return
    const overloads = standardByName.get(name)
    if (!overloads) throw this.#error(expr, `there is no function ${shown(name)}`)
    const takes = (func: CelFunc) =>
      (func.target !== undefined) === (target !== undefined) && func.arguments.length === args.length
    if (!overloads.some(takes)) {
      throw this.#error(expr, `${name} is not called ${target ? 'on a value ' : ''}with ${args.length} arguments`)
    }
    if (name === 'matches') this.#addPattern(args[0] as Expr)
  }

  #addPattern(expr: Expr): void {
    const text = literalText(expr)
    // A pattern of an event would have to be compiled for each.
    if (text === undefined) throw this.#error(expr, 'the pattern of matches must be a literal text')
    try {
      const pattern = RE2JS.compile(text)
      if (pattern.programSize() <= maxPatternSize) {
        this.#patterns.set(text, pattern)
        return
      }
    } catch (cause) {
      throw this.#error(expr, `${shown(text)} is no pattern of RE2`, cause)
    }
    throw this.#error(expr, `the pattern needs more than ${maxPatternSize} instructions. Repeat less`)
  }

  #error(expr: Expr, what: string, cause?: unknown): SpillwayError {
    return this.#source.error(expr, what, cause)
  }
}

const standardByName = new Map<string, CelFunc[]>()
for (const func of standard) standardByName.set(func.name, [...(standardByName.get(func.name) ?? []), func])

/** Operators that the planner knows without a function. */
const planned: Readonly<Record<string, true>> = {
  '_&&_': true,
  '_||_': true,
  '_?_:_': true,
  '_[_]': true,
  '@not_strictly_false': true,
}
/** How many operands of an operator, from the first on, must be conditions. */
const conditions: Readonly<Record<string, number>> = { '_&&_': 2, '_||_': 2, '!_': 1, '_?_:_': 1 }

function mayBeCondition(expr: Expr, scope: Scope): boolean {
  const { case: kind, value } = expr.exprKind
  if (kind === 'constExpr') return value.constantKind.case === 'boolValue'
  if (kind === 'identExpr') return scope.has(value.name) || value.name === 'payload'
  if (kind === 'selectExpr') return true
  // The list that `filter` and `map` begin with.
  if (kind === 'comprehensionExpr') return value.accuInit?.exprKind.case !== 'listExpr'
  if (kind !== 'callExpr') return false
  const { function: name, args } = value
  if (name === '_?_:_') return args.slice(1).some((branch) => mayBeCondition(branch, scope))
  const overloads = standardByName.get(name)
  return !overloads || overloads.some(({ result }) => result.name === 'bool' || result.name === 'dyn')
}

function isText({ exprKind: { case: kind, value } }: Expr, scope: Scope): boolean {
  return kind === 'identExpr' && !scope.has(value.name) && texts.includes(value.name)
}

function literalText({ exprKind: { case: kind, value } }: Expr): string | undefined {
  return kind === 'constExpr' && value.constantKind.case === 'stringValue' ? value.constantKind.value : undefined
}
