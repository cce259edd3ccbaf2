import { callOf, children, constantOf, type Expr, type Loop } from './tree.ts'

/**
 * Makes the loops of a tree pay from the budget of its evaluation: for the size of what they go over before they start,
 * and for all nodes of their body before each element. So loops may be nested, and no evaluation takes more steps than the
 * tree has nodes and the budget has units. Returns how many nodes are evaluated once; those of loops pay for themselves.
 */
export function meterLoops(expr: Expr): number {
  const { case: kind, value } = expr.exprKind
  let nodes = 1
  if (kind === 'comprehensionExpr') return nodes + meterLoop(value)
  for (const child of children(expr)) nodes += meterLoops(child)
  return nodes
}

function meterLoop(loop: Loop): number {
  const { iterRange, accuInit, loopCondition, loopStep, result } = loop
  const body = sum([loopCondition, loopStep])
  const outside = sum([iterRange, accuInit, result])
  loop.iterRange = callOf('@weigh', iterRange)
  const units = constantOf({ case: 'int64Value', value: BigInt(body) })
  loop.loopCondition = callOf(
    '_?_:_',
    callOf('@spend', units),
    loopCondition,
    constantOf({ case: 'boolValue', value: false }),
  )
  return outside
}

function sum(parts: readonly (Expr | undefined)[]): number {
  return parts.reduce((nodes, part) => nodes + (part ? meterLoops(part) : 0), 0)
}
